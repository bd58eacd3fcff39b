package main

import "strings"

const fileIntroduction = `The file is TOML and the same on every node: an agent finds its own [[node]] by the
address that is on the machine. What is left out has the default that stands here, but
where "e.g." marks an example. Durations are strings: "200ms", "1s", "30m".
Unknown keys are refused. sipalive check -c FILE reads a file as the agent would, and
sipalive reload makes a running agent take it.`

// table is one table of the reference with its keys.
type table struct {
	header, comment string
	keys            []tableKey
}

type tableKey struct{ name, value, comment string }

// file writes sipalive.toml(5), from the reference.
func (r *roff) file(reference string) {
	r.head("SIPALIVE.TOML", 5)
	r.section("NAME")
	r.line("sipalive.toml - configuration of sipalive, the keeper of floating IPs")
	r.section("DESCRIPTION")
	r.prose(fileIntroduction)
	r.section("KEYS")
	for _, t := range tables(reference) {
		name := t.header
		if name == "" {
			name = "At the top"
		}
		r.subsection(name)
		r.prose(t.comment)
		for _, k := range t.keys {
			r.tagged(k.name, " = "+k.value, k.comment)
		}
	}
	r.section("SEE ALSO")
	r.line("sipalive(8)")
}

// tables reads the reference, one key per line. Tables of the same name become one table;
// a key that comes again is another example and is left out.
func tables(reference string) []*table {
	all := []*table{{}}
	at := all[0]
	body := false
	for line := range strings.Lines(reference) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			body = true // what comes before is about the file, and fileIntroduction says it
		case strings.HasPrefix(line, "#"):
			if body {
				at.comment = joined(at.comment, strings.TrimSpace(line[1:]))
			}
		case strings.HasPrefix(line, "["):
			header, comment := splitComment(line)
			at = nil
			for _, t := range all {
				if t.header == header {
					at = t
				}
			}
			if at == nil {
				at = &table{header: header, comment: comment}
				all = append(all, at)
			}
		default:
			assignment, comment := splitComment(line)
			name, value, _ := strings.Cut(assignment, "=")
			at.add(tableKey{strings.TrimSpace(name), strings.TrimSpace(value), comment})
		}
	}
	return all
}

func (t *table) add(k tableKey) {
	for _, known := range t.keys {
		if known.name == k.name {
			return
		}
	}
	t.keys = append(t.keys, k)
}

// splitComment splits a line of the reference at the first # outside quotes.
func splitComment(line string) (before, comment string) {
	quoted := false
	for i, c := range line {
		switch {
		case c == '"':
			quoted = !quoted
		case c == '#' && !quoted:
			return strings.TrimSpace(line[:i]), strings.TrimSpace(line[i+1:])
		}
	}
	return line, ""
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
