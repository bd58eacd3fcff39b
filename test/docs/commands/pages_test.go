package commands

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const source = "../../../"

// command is one line of a shell block.
type command struct {
	page   string
	line   int
	text   string
	prints string // the block of output that follows, if there is one
}

// languages are what a fence of the pages may name: commands, their output, and pieces of
// a file (cmd/sipalive checks those).
var languages = []string{"sh", "text", "toml"}

// forms are pages that show the forms of commands and source code, not command lines.
var forms = []string{"design.md"}

// commands returns the commands of all shell blocks, in order.
func commands(t *testing.T) (all []command) {
	t.Helper()
	pages, err := filepath.Glob(source + "docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append([]string{source + "README.md", source + "examples/README.md"}, pages...) {
		if slices.Contains(forms, filepath.Base(page)) {
			continue
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := filepath.Rel(source, page)
		all = append(all, shell(t, name, string(text))...)
	}
	return all
}

// shell returns the commands of one page.
func shell(t *testing.T, page, text string) (all []command) {
	t.Helper()
	language, last, indent, open := "", "", "", false
	for i, line := range strings.Split(text, "\n") {
		fence, is := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case is && !open:
			indent = line[:strings.Index(line, "`")]
			last, language, open = language, fence, true
			if !slices.Contains(languages, language) {
				t.Errorf("%s:%d: a fence says %q; say sh for commands, text for what they print, toml for a file", page, i+1, language)
			}
		case is:
			open = false
		case open && language == "sh":
			if c := plain(line); c != "" {
				all = append(all, command{page: page, line: i + 1, text: c})
			}
		case open && language == "text" && last == "sh":
			all[len(all)-1].prints += strings.TrimPrefix(line, indent) + "\n"
		}
	}
	return all
}

// plain returns a line without its remark: after # or, in a list, after several spaces.
func plain(line string) string {
	line, _, _ = strings.Cut(strings.TrimSpace(line), " # ")
	line, _, _ = strings.Cut(line, "   ")
	if strings.HasPrefix(line, "#") {
		return ""
	}
	return strings.TrimSpace(line)
}
