package docs

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// TestCounters: every counter of the status has a metric, and every metric of a counter
// has its counter.
func TestCounters(t *testing.T) {
	var counters, metrics []string
	word := func(e ast.Expr) []string {
		if lit, is := e.(*ast.BasicLit); is && strings.HasPrefix(lit.Value, `"`) {
			return []string{text(lit)}
		}
		return nil
	}
	keys := func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.KeyValueExpr:
			counters = append(counters, word(n.Key)...)
		case *ast.IndexExpr:
			counters = append(counters, word(n.Index)...)
		}
		return true
	}
	for _, files := range []string{"agent/*.go", "control/server.go"} {
		each(t, files, func(n ast.Node) {
			if f, is := n.(*ast.FuncDecl); is && (strings.HasSuffix(f.Name.Name, "Counters") || f.Name.Name == "countersNow") {
				ast.Inspect(f, keys)
			}
		})
	}
	each(t, "control/metrics_table.go", func(n ast.Node) {
		if call, is := n.(*ast.CallExpr); is && (name(call) == "counter" || name(call) == "worst") {
			metrics = append(metrics, word(call.Args[0])...)
		}
	})
	slices.Sort(counters)
	slices.Sort(metrics)
	if len(counters) < 20 {
		t.Fatalf("only %q are found: the test looks in the wrong place", counters)
	}
	for _, c := range slices.Compact(counters) {
		if !slices.Contains(metrics, c) {
			t.Errorf("counter %s has no metric in control/metrics_table.go", c)
		}
	}
	for _, m := range metrics {
		if !slices.Contains(counters, m) {
			t.Errorf("control/metrics_table.go has a metric of %s, which nothing counts", m)
		}
	}
}
