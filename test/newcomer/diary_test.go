package newcomer

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// page is the page that a newcomer follows.
const page = "docs/deployment.md"

// diary records what was done and how long it took, in parts.
type diary struct {
	t     *testing.T
	parts []part
}

type part struct {
	title string
	steps []step
}

type step struct {
	command, what string
	took          time.Duration
}

func (d *diary) part(title string) { d.parts = append(d.parts, part{title: title}) }

// note runs a step and records how long it took.
func (d *diary) note(command, what string, do func()) {
	start := time.Now()
	do()
	d.took(command, what, time.Since(start))
}

func (d *diary) took(command, what string, took time.Duration) {
	d.t.Logf("%6.1f s  %s  %s", took.Seconds(), command, what)
	now := &d.parts[len(d.parts)-1]
	now.steps = append(now.steps, step{command, what, took})
}

// total returns how long the current part has taken.
func (d *diary) total() (sum time.Duration) {
	for _, s := range d.parts[len(d.parts)-1].steps {
		sum += s.took
	}
	return sum
}

// says returns the line of a page's shell block that is, or begins with, a command. A
// newcomer types nothing else.
func (d *diary) says(page, begin string) string {
	d.t.Helper()
	text, err := os.ReadFile("../../" + page)
	if err != nil {
		d.t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "   ")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = !inside
		case inside && (line == begin || strings.HasPrefix(line, begin+" ")):
			return line
		}
	}
	d.t.Fatalf("%s has no command %q", page, begin)
	return ""
}

// table returns the diary as a Markdown table.
func (d *diary) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| step | | took | since the start |\n|---|---|---|---|\n")
	for _, p := range d.parts {
		fmt.Fprintf(&b, "| **%s** | | | |\n", p.title)
		sum := time.Duration(0)
		for _, s := range p.steps {
			sum += s.took
			fmt.Fprintf(&b, "| %s | %s | %.1f s | %.1f s |\n", cell(s.command), s.what, s.took.Seconds(), sum.Seconds())
		}
	}
	return b.String()
}

// cell returns the start of a command, up to a whole word or flag. The page has the whole
// command.
func cell(command string) string {
	const room = 72
	if command == "" {
		return ""
	}
	if len(command) <= room {
		return "`" + command + "`"
	}
	head := command[:room]
	cut := strings.LastIndex(head, " --")
	if cut < 0 {
		cut = strings.LastIndexByte(head, ' ')
	}
	return "`" + head[:max(cut, 0)] + "` …"
}

var block = regexp.MustCompile(`(?s)(<!-- figures: newcomer -->\n).*?(<!-- end -->\n)`)

// write puts the table into its page.
func (d *diary) write() {
	path := "../../" + page
	text, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	at := block.FindSubmatchIndex(text)
	if at == nil {
		d.t.Fatalf("%s has no place for the figures", page)
	}
	text = slices.Concat(text[:at[3]], []byte("\n"+d.table()+"\n"), text[at[4]:])
	if err := os.WriteFile(path, text, 0o644); err != nil {
		d.t.Fatal(err)
	}
}
