package docs

import (
	"go/ast"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMarks: docs/events.md has every mark that a takeover's timeline can have beside its
// actions, and no other.
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
	listed(t, "timeline", marks)
}

// TestKinds: docs/events.md has every kind of event, with what to do.
func TestKinds(t *testing.T) {
	var kinds []string
	each(t, "control/event.go", func(n ast.Node) {
		if v, is := n.(*ast.ValueSpec); is && (strings.HasPrefix(v.Names[0].Name, "Kind") || v.Names[0].Name == "Takeover") {
			kinds = append(kinds, text(v.Values[0]))
		}
	})
	listed(t, "kind", kinds)
	doc, err := os.ReadFile(root + "docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		if !regexp.MustCompile("(?m)^\\| `" + kind + "` \\|([^|]+\\|){3}$").Match(doc) {
			t.Errorf("docs/events.md: the row of `%s` has to say where it is seen, what it means and what to do", kind)
		}
	}
}

// listed compares the table under a heading of docs/events.md with the code's words.
func listed(t *testing.T, heading string, words []string) {
	t.Helper()
	doc, err := os.ReadFile(root + "docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(doc), "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(words)
	slices.Sort(documented)
	if words = slices.Compact(words); !found || len(words) < 5 || !slices.Equal(words, documented) {
		t.Errorf("docs/events.md, %s, has %q, the code %q", heading, documented, words)
	}
}
