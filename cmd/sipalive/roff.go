package main

import (
	"fmt"
	"strings"
)

// roff builds a manual page in the macros of groff_man(7).
type roff struct{ b strings.Builder }

func (r *roff) text() string { return r.b.String() }

// escape keeps text from being read as requests. It also keeps hyphens as they are typed,
// so that they can be copied from the page.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, `-`, `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}

// quoted returns text as one argument of a macro.
func quoted(text string) string {
	return `"` + strings.ReplaceAll(escape(text), `"`, `\(dq`) + `"`
}

func (r *roff) head(title string, section int) {
	fmt.Fprintf(&r.b, ".TH %s %d\n.nh\n.ad l\n", quoted(title), section)
}

func (r *roff) macro(name, argument string) { fmt.Fprintf(&r.b, ".%s %s\n", name, quoted(argument)) }

func (r *roff) section(title string)    { r.macro("SH", title) }
func (r *roff) subsection(title string) { r.macro("SS", title) }

func (r *roff) line(text string) { r.b.WriteString(escape(text) + "\n") }

// prose writes paragraphs, which empty lines separate. It leaves an indented paragraph as
// it is.
func (r *roff) prose(text string) {
	if text == "" {
		return
	}
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			r.b.WriteString(".PP\n")
		}
		if strings.HasPrefix(paragraph, " ") || strings.Contains(paragraph, "\n  ") {
			r.verbatim(paragraph)
			continue
		}
		for line := range strings.SplitSeq(paragraph, "\n") {
			r.line(line)
		}
	}
}

// tagged writes an item of a list: its name in bold, the rest of its head plain.
func (r *roff) tagged(name, rest, text string) {
	fmt.Fprintf(&r.b, ".TP\n\\fB%s\\fR%s\n", escape(name), escape(rest))
	for line := range strings.SplitSeq(text, "\n") {
		r.line(strings.TrimSpace(line))
	}
}

func (r *roff) verbatim(text string) {
	r.b.WriteString(".PP\n.EX\n")
	for line := range strings.SplitSeq(strings.Trim(text, "\n"), "\n") {
		r.line(line)
	}
	r.b.WriteString(".EE\n")
}
