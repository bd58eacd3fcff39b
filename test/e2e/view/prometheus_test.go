package view

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"sipalive/test/cluster"
	"sipalive/test/lab"
)

const examples = "../../../examples/prometheus/"

// prometheus is a client of the Prometheus on the lab's phone.
type prometheus struct {
	*http.Client
}

const prometheusAt = "127.0.0.1:9090"

// startPrometheus runs the examples' configuration with the lab's addresses and shorter
// intervals.
func startPrometheus(t *testing.T, c *cluster.Cluster) prometheus {
	t.Helper()
	dir := t.TempDir()
	conf := strings.ReplaceAll(read(t, examples+"prometheus.yml"), "5s", "500ms")
	for i, h := range c.Nodes() {
		conf = strings.ReplaceAll(conf, fmt.Sprintf("192.0.2.%d:", 11+i), h.Addr.String()+":")
	}
	for name, text := range map[string]string{"prometheus.yml": conf, "alerts.yml": read(t, examples+"alerts.yml")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Phone().Start(lab.Spec{Path: "prometheus", Args: []string{"--config.file=" + dir + "/prometheus.yml",
		"--storage.tsdb.path=" + dir + "/data", "--web.listen-address=" + prometheusAt}})
	if err != nil {
		t.Fatal(err)
	}
	return prometheus{client(c.Phone())}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// query returns the values of an expression by their labels.
func (p prometheus) query(expr string) (map[string]string, error) {
	var r struct {
		Data struct {
			Result []struct {
				Metric json.RawMessage
				Value  [2]any
			}
		}
	}
	if err := getJSON(p.Client, "http://"+prometheusAt+"/api/v1/query?query="+url.QueryEscape(expr), &r); err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, s := range r.Data.Result {
		values[string(s.Metric)] = fmt.Sprint(s.Value[1])
	}
	return values, nil
}

// is waits until an expression without labels has this value.
func (p prometheus) is(t *testing.T, expr, want string) {
	t.Helper()
	wait(t, expr+" is "+want, func() error {
		values, err := p.query(expr)
		if err == nil && values["{}"] != want {
			err = fmt.Errorf("%v", values)
		}
		return err
	})
}

// TestPrometheus: the examples work with three agents, one of which dies.
func TestPrometheus(t *testing.T) {
	c := start(t, nil)
	p := startPrometheus(t, c)
	p.is(t, `count(up{job="sipalive"} == 1)`, "3")
	p.is(t, `sum(sipalive_vip_held_here)`, "2")
	p.is(t, `min(sipalive_node_sip_up)`, "1")
	p.is(t, `max(sipalive_vip_away)`, "0")
	scrape(t, c)
	rules(t, p)

	c.Agent(0).Kill()
	p.is(t, `sum(sipalive_takeovers_total{vip="vip1",reason="crash"})`, "1")
	p.is(t, `sum(sipalive_takeover_seconds_count{reason="crash"})`, "1")
	p.is(t, `max(sipalive_vip_away{vip="vip1"})`, "1")
	p.is(t, `sum(sipalive_vip_held_here)`, "2")
	p.is(t, `count(ALERTS{alertname="SipaliveAgentDown"})`, "1")
	p.is(t, `count(ALERTS{alertname="SipaliveNodeSilent"})`, "1")
	p.is(t, `count(ALERTS{severity="critical",alertstate="firing"}) or vector(0)`, "0")
	board(t, p)
	t.Logf("an agent scraped twice a second: %s", resident(t, c.Agent(1).Pid))
}

// resident returns how much memory a process occupies, by the kernel's count.
func resident(t *testing.T, pid int) string {
	t.Helper()
	return strings.Join(strings.Fields(regexp.MustCompile(`VmRSS:.*`).FindString(read(t, fmt.Sprintf("/proc/%d/status", pid)))), " ")
}

// scrape asserts that an agent's metrics are clean and documented, and include every
// counter of its status.
func scrape(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	text, err := get(client(c.Phone()), fmt.Sprintf("http://%s:%d/metrics", c.Node(0).Addr, port))
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	doc := read(t, "../../../docs/metrics.md")
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (sipalive_\w+) `).FindAllStringSubmatch(text, -1) {
		if !strings.Contains(doc, "| `"+m[1]+"` |") {
			t.Errorf("%s is not in docs/metrics.md", m[1])
		}
	}
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	st, err := c.Client(0).Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for key := range st.Counters {
		name := "sipalive_" + key + "_total"
		if worst, is := strings.CutSuffix(key, "_us"); is {
			name = "sipalive_" + worst + "_seconds"
		}
		if !strings.Contains(text, "\n"+name+" ") {
			t.Errorf("the status's counter %s has no metric %s (control/metrics_table.go)", key, name)
		}
	}
}

// rules asserts that Prometheus evaluates every rule of the examples.
func rules(t *testing.T, p prometheus) {
	t.Helper()
	want := strings.Count(read(t, examples+"alerts.yml"), "- alert:")
	wait(t, "every rule is evaluated", func() error {
		var r struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Health, LastError string }
				}
			}
		}
		if err := getJSON(p.Client, "http://"+prometheusAt+"/api/v1/rules", &r); err != nil {
			return err
		}
		ok := 0
		for _, g := range r.Data.Groups {
			for _, rule := range g.Rules {
				if rule.Health == "ok" {
					ok++
				} else if rule.LastError != "" {
					t.Fatalf("%s: %s", rule.Name, rule.LastError)
				}
			}
		}
		if ok != want {
			return fmt.Errorf("%d of %d", ok, want)
		}
		return nil
	})
}

// board asserts that every panel of the Grafana board shows something.
func board(t *testing.T, p prometheus) {
	t.Helper()
	var b struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, examples+"grafana.json")), &b); err != nil {
		t.Fatal(err)
	}
	if len(b.Panels) < 8 {
		t.Fatalf("%d panels", len(b.Panels))
	}
	for _, panel := range b.Panels {
		for _, target := range panel.Targets {
			wait(t, panel.Title, func() error {
				values, err := p.query(target.Expr)
				if err == nil && len(values) == 0 {
					err = fmt.Errorf("%s: nothing", target.Expr)
				}
				return err
			})
		}
	}
}
