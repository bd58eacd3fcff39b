package examples

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestPrometheus: Prometheus's own tool accepts configuration and rules, and the tests of
// the rules pass.
func TestPrometheus(t *testing.T) {
	for _, args := range [][]string{{"check", "config", "prometheus.yml"}, {"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = root + "/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// TestEveryRuleIsTested: each rule is tested once where it fires and once where it does
// not. promtool does not report rules without tests.
func TestEveryRuleIsTested(t *testing.T) {
	names := regexp.MustCompile(`- alert: (\w+)\n`).FindAllStringSubmatch(example(t, "alerts.yml"), -1)
	if len(names) < 20 {
		t.Fatalf("%d rules", len(names))
	}
	fires, quiet, known := map[string]int{}, map[string]int{}, map[string]bool{}
	for _, test := range strings.Split(example(t, "alerts_test.yml"), "alertname: ")[1:] {
		name := regexp.MustCompile(`^\w+`).FindString(test)
		if strings.Contains(test, "exp_alerts: []") {
			quiet[name]++
		} else if strings.Contains(test, "- exp_labels: ") {
			fires[name]++
		}
	}
	for _, n := range names {
		known[n[1]] = true
		if fires[n[1]] == 0 || quiet[n[1]] == 0 {
			t.Errorf("%s: %d tests where it fires, %d where it does not; want one of each at least", n[1], fires[n[1]], quiet[n[1]])
		}
	}
	for _, of := range []map[string]int{fires, quiet} {
		for name := range of {
			if !known[name] { // its quiet test would pass for ever
				t.Errorf("%s is tested, and is no rule", name)
			}
		}
	}
}

func example(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(root + "/prometheus/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
