package control

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// maxShown is how many lines of a failed action's output people are shown. --json has all
// that was kept.
const maxShown = 10

// WriteEvent writes an event for people: one line, and below it a takeover's timeline in
// milliseconds since it was noticed. Times are shown in loc.
func WriteEvent(w io.Writer, e Event, loc *time.Location) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  %s\n", e.Time.In(loc).Format("2006-01-02 15:04:05.000"), oneLine(e.Node), oneLine(e.line()))
	width := 0
	for _, m := range e.Timeline {
		width = max(width, len(m.At.String()))
	}
	for _, m := range e.Timeline {
		fmt.Fprintf(&b, "    %*s  %s\n", width, m.At, oneLine(m.line()))
		if m.OK != nil && !*m.OK {
			writeOutput(&b, strings.Repeat(" ", width+8), m.Output)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// line describes the event in one line.
func (e Event) line() string {
	if e.Kind != Takeover {
		if e.Text == "" {
			return strings.TrimSpace(e.Kind + " " + e.VIP)
		}
		return e.Kind + ": " + e.Text
	}
	from := e.From
	if from == "" {
		from = "nobody"
	}
	line := fmt.Sprintf("takeover: %s: %s -> %s, epoch %d", e.VIP, from, e.To, e.Epoch)
	for _, s := range []string{e.Reason, e.Text} {
		if s != "" {
			line += ", " + s
		}
	}
	if e.Outcome == "" {
		return line + ": still going on"
	}
	return line + ": " + e.Outcome
}

func (m Mark) line() string {
	if m.OK == nil {
		return m.Mark
	}
	if *m.OK {
		return fmt.Sprintf("%s: ok in %s", m.Mark, m.Took)
	}
	return fmt.Sprintf("%s: failed after %s: %s", m.Mark, m.Took, m.Err)
}

func writeOutput(b *strings.Builder, indent, output string) {
	output = strings.TrimRight(output, "\n")
	if output == "" {
		return
	}
	lines := strings.Split(output, "\n")
	for i, line := range lines {
		if i == maxShown {
			fmt.Fprintf(b, "%s| %d more lines: sipalive events --json\n", indent, len(lines)-i)
			return
		}
		fmt.Fprintf(b, "%s| %s\n", indent, oneLine(line))
	}
}
