package control

import "io"

// WriteFlush writes the table of a flush for people.
func WriteFlush(w io.Writer, results []FlushResult) error {
	var t table
	t.add("NODE", "ACTION", "RESULT", "TOOK", "NOTE")
	for _, r := range results {
		result, took := "failed", ""
		if r.OK {
			result = "ok"
		}
		if r.Action != "" {
			took = r.Took.String()
		}
		t.add(r.Node, r.Action, result, took, r.Text)
	}
	return t.write(w)
}

// Flushed reports whether every action of every node succeeded.
func Flushed(results []FlushResult) bool {
	for _, r := range results {
		if !r.OK {
			return false
		}
	}
	return true
}
