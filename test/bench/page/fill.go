package page

import (
	"fmt"
	"os"
	"strings"
)

const endMark = "<!-- end -->"

func beginMark(name string) string { return "<!-- figures: " + name + " -->" }

// Fill replaces what stands between the marks of a name. A document with no such marks,
// or with two of them, is an error: figures must not get lost silently.
func Fill(doc, name, block string) (string, error) {
	begin := beginMark(name)
	if n := strings.Count(doc, begin); n != 1 {
		return "", fmt.Errorf("fill figures %q: %d marks %s, want one", name, n, begin)
	}
	head, rest, _ := strings.Cut(doc, begin)
	old, tail, ended := strings.Cut(rest, endMark)
	if !ended || strings.Contains(old, "<!-- figures: ") {
		return "", fmt.Errorf("fill figures %q: no %s after its mark", name, endMark)
	}
	return head + begin + "\n" + strings.Trim(block, "\n") + "\n" + endMark + tail, nil
}

// FillFile is Fill for a file. It does not write a file that has that content already.
func FillFile(path, name, block string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	filled, err := Fill(string(text), name, block)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if filled == string(text) {
		return nil
	}
	return os.WriteFile(path, []byte(filled), 0o644)
}

// Table returns a table in Markdown.
func Table(header []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(header)
	b.WriteString("|" + strings.Repeat("---|", len(header)) + "\n")
	for _, r := range rows {
		line(r)
	}
	return b.String()
}
