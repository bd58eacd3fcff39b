// Package docs checks docs/alarms.md and the lists of docs/events.md against the code:
// they have every alarm of the code, and no other. It also follows the pages' links;
// test/docs/commands runs their commands.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../../"

// rows returns the first column of the table under a heading of docs/alarms.md.
func rows(t *testing.T, heading string) (words []string) {
	t.Helper()
	doc, err := os.ReadFile(root + "docs/alarms.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(doc), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/alarms.md has no heading %q any more", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		words = append(words, m[1])
	}
	return words
}

func compare(t *testing.T, heading string, code []string) {
	t.Helper()
	if len(code) == 0 {
		t.Fatal("the code has none: the test looks in the wrong place")
	}
	documented := rows(t, heading)
	slices.Sort(code)
	for _, alarm := range slices.Compact(code) {
		if !slices.Contains(documented, alarm) {
			t.Errorf("docs/alarms.md, %s: no row | `%s` | says what that means and what to do", heading, alarm)
		}
	}
	for i, alarm := range documented {
		if !slices.Contains(code, alarm) || slices.Contains(documented[:i], alarm) {
			t.Errorf("docs/alarms.md, %s: `%s` is not said by the code, or explained twice", heading, alarm)
		}
	}
}

// each walks the syntax of every file of a room, without tests.
func each(t *testing.T, pattern string, visit func(ast.Node)) {
	t.Helper()
	paths, err := filepath.Glob(root + pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			visit(n)
			return true
		})
	}
}

// name returns the name of a called function: say, warn, Log.Warn.
func name(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

var verb = regexp.MustCompile(`%(\[\d+\])?[a-z]`)

// text returns the literal parts of a string, with … for what is known only at run time.
func text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, _ := strconv.Unquote(e.Value) // the parser has read it
		return strings.ReplaceAll(verb.ReplaceAllString(s, "…"), "……", "…")
	case *ast.BinaryExpr:
		return text(e.X) + text(e.Y)
	case *ast.CallExpr:
		if name(e) == "Sprintf" {
			return text(e.Args[0])
		}
	}
	return "…"
}

// TestWhatToDo: each row says what the alarm means and what to do.
func TestWhatToDo(t *testing.T) {
	doc, err := os.ReadFile(root + "docs/alarms.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(doc), "\n") {
		if strings.HasPrefix(line, "| ") && !regexp.MustCompile(`^\|( \S[^|]* \|){3}$`).MatchString(line) {
			t.Errorf("docs/alarms.md:%d: not three filled columns: %s", i+1, line)
		}
	}
}

// TestUnusual checks every line that status marks with "!".
func TestUnusual(t *testing.T) {
	var lines []string
	each(t, "control/render_*.go", func(n ast.Node) {
		switch n := n.(type) {
		case *ast.CallExpr:
			if name(n) == "say" {
				lines = append(lines, text(n.Args[1]))
			}
		case *ast.FuncDecl:
			if n.Name.Name != "unusualTargets" {
				return
			}
			ast.Inspect(n, func(n ast.Node) bool {
				if call, is := n.(*ast.CallExpr); is && name(call) == "Sprintf" {
					lines = append(lines, text(call))
				}
				return true
			})
		}
	})
	compare(t, "What `sipalive status` marks with !", lines)
}

// TestLogLines checks every warning and error that is no event of the election. A message
// that is only a variable is left to words.
func TestLogLines(t *testing.T) {
	var lines []string
	for _, room := range []string{"agent/*.go", "cmd/sipalive/*.go"} {
		each(t, room, func(n ast.Node) {
			call, is := n.(*ast.CallExpr)
			if !is || len(call.Args) == 0 {
				return
			}
			message := call.Args[0]
			switch name(call) {
			case "warn", "Warn", "Error":
			case "Log":
				message = call.Args[min(2, len(call.Args)-1)]
			default:
				return
			}
			if line := text(message); strings.Trim(line, "… ") != "" {
				lines = append(lines, line)
			}
		})
	}
	compare(t, "Other warnings and errors in the log", lines)
}

// TestNotices checks what [[notify]] can report.
func TestNotices(t *testing.T) {
	var notices []string
	each(t, "config/config.go", func(n ast.Node) {
		if v, is := n.(*ast.ValueSpec); is {
			if typ, is := v.Type.(*ast.Ident); is && typ.Name == "Notice" {
				notices = append(notices, text(v.Values[0]))
			}
		}
	})
	compare(t, "Notices by mail, webhook and script", notices)
}

// TestAlerts checks every rule of examples/prometheus.
func TestAlerts(t *testing.T) {
	rules, err := os.ReadFile(root + "examples/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var alerts []string
	for _, m := range regexp.MustCompile(`(?m)- alert: (\w+)$`).FindAllStringSubmatch(string(rules), -1) {
		alerts = append(alerts, m[1])
	}
	compare(t, "Alerts of Prometheus", alerts)
}
