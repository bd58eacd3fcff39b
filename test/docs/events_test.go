package docs

import (
	"go/ast"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMarks: docs/events.md has every mark that a takeover's timeline can have
// beside its actions, and no other.
func TestMarks(t *testing.T) {
	var marks []string
	each(t, "agent/*.go", func(n ast.Node) {
		call, is := n.(*ast.CallExpr)
		if !is {
			return
		}
		at := map[string]int{"Add": 0, "mark": 2}
		if i, known := at[name(call)]; known && i < len(call.Args) {
			if lit, is := call.Args[i].(*ast.BasicLit); is && strings.HasPrefix(lit.Value, `"`) {
				marks = append(marks, text(lit))
			}
		}
	})
	doc, err := os.ReadFile(root + "docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(doc), "\n## timeline\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(marks)
	slices.Sort(documented)
	if !found || len(marks) < 5 || !slices.Equal(slices.Compact(marks), documented) {
		t.Errorf("docs/events.md, timeline, has %q, the code %q", documented, marks)
	}
}
