// Package doctor asks `sipalive doctor` on the nodes of a cluster that is sound, and of
// one whose firewall drops the agents' port.
package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sipalive/config"
	"sipalive/control"
	"sipalive/doctor"
	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

// binary is sipalive as it is shipped, built once per run.
var binary string

func TestMain(m *testing.M) { os.Exit(shipped.Main(m, "e2e/doctor", &binary)) }

// patience bounds every wait for something that has to come.
const patience = 30 * time.Second

type site struct {
	*cluster.Cluster
	t *testing.T
}

func TestDoctor(t *testing.T) {
	c, err := cluster.Start(cluster.Options{Binary: binary})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &site{c, t}
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if err := c.WaitHeld(ctx, 0, "pbx1", "pbx2", "pbx3"); err != nil {
		t.Fatal(err)
	}
	for _, scene := range []struct {
		name string
		play func()
	}{
		{"sound", s.sound}, {"dropped on the way in", s.droppedIn}, {"dropped on the way out", s.droppedOut},
		{"without an agent", s.without}, {"without an agent, dropped", s.withoutDropped}, {"another key", s.anotherKey},
	} {
		t.Run(scene.name, func(t *testing.T) {
			s.t = t
			scene.play()
		})
	}
}

// ask runs it on the first node. The exit code has to be what the findings say.
func (s *site) ask(file string) (found []doctor.Finding) {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	out, err := s.Node(0).Run(ctx, binary, "doctor", "-c", file, "--run-dir", s.RunDir(0), "--json")
	d := json.NewDecoder(strings.NewReader(out))
	for d.More() {
		var f doctor.Finding
		if err := d.Decode(&f); err != nil {
			s.t.Fatalf("%v in\n%s", err, out)
		}
		found = append(found, f)
	}
	if wrong := doctor.Worst(found) == doctor.Error; len(found) == 0 || wrong != (err != nil) {
		s.t.Fatalf("errors: %t, exit: %v\n%s", wrong, err, out)
	}
	s.t.Logf("%s", out)
	return found
}

// says asserts that a check found that, in the first of its lines that has the words.
func (s *site) says(found []doctor.Finding, level doctor.Level, check string, words ...string) {
	s.t.Helper()
	if !slices.ContainsFunc(found, func(f doctor.Finding) bool {
		all := f.Text + ". " + f.Do
		return f.Check == check && f.Level == level && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(all, w) })
	}) {
		s.t.Errorf("no %s of %s with %q", level, check, words)
	}
}

func (s *site) sound() {
	s.wait("pbx2 and pbx3 answer pbx1", func(st control.Status) bool {
		return st.Nodes[1].Answered > 0 && st.Nodes[2].Answered > 0
	})
	s.wait("the router is shown to follow", func(st control.Status) bool { return st.VIPs[0].Router == "proven" })
	found := s.ask(s.Config)
	for _, f := range found {
		if f.Level == doctor.Error {
			s.t.Errorf("nothing is wrong, but %+v", f)
		}
	}
	for _, node := range []string{"pbx2", "pbx3"} {
		s.says(found, doctor.OK, "port", node, "it answers over UDP, and TCP is open")
		s.says(found, doctor.OK, "drift", node)
		s.says(found, doctor.OK, "sip", "node "+node, "200 OK")
	}
	s.says(found, doctor.OK, "firewall", "lets port 7946 pass")
	s.says(found, doctor.OK, "capabilities", "the agent has")
	s.says(found, doctor.OK, "router", "vip1")
	s.says(found, doctor.OK, "address", "vip1")
}

func (s *site) droppedIn() {
	undo := s.rule("input", "ip saddr "+s.Node(1).Addr.String()+" udp dport 7946 drop")
	s.wait("pbx2 is not heard", func(st control.Status) bool { return !st.Nodes[1].Alive })
	found := s.ask(s.Config)
	s.says(found, doctor.Error, "port", "pbx2", "TCP is open, and no heartbeat is heard", "rule ", "of chain guard in table inet sipa")
	s.says(found, doctor.Error, "firewall", "of chain guard in table inet sipa", "drops UDP from pbx2 port 7946")
	s.says(found, doctor.OK, "port", "pbx3")
	undo()
	s.wait("pbx2 is heard", func(st control.Status) bool { return st.Nodes[1].Alive })
}

func (s *site) droppedOut() {
	undo := s.rule("output", "ip daddr "+s.Node(2).Addr.String()+" udp dport 7946 reject")
	defer undo()
	s.says(s.ask(s.Config), doctor.Warning, "firewall", "of chain guard in table inet sipa", "drops UDP to pbx3 port 7946")
}

func (s *site) without() {
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if _, err := s.Client(0).Do(ctx, control.Command{Kind: control.Stop}); err != nil {
		s.t.Fatal(err)
	}
	// It exits with 10; its control socket is gone before its port is free.
	if _ = s.Agent(0).Wait(ctx); ctx.Err() != nil {
		s.t.Fatalf("the agent has not ended: %v", ctx.Err())
	}
	found := s.ask(s.Config)
	for _, node := range []string{"pbx2", "pbx3"} {
		s.says(found, doctor.OK, "port", node, "reached over UDP and TCP, and it reaches this node")
	}
	s.says(found, doctor.Warning, "capabilities", "systemctl start sipalive")
}

func (s *site) withoutDropped() {
	undo := s.rule("input", "ip saddr "+s.Node(1).Addr.String()+" udp dport 7946 drop")
	defer undo()
	found := s.ask(s.Config)
	s.says(found, doctor.Error, "port", "pbx2", "TCP is open, but nothing is heard over UDP", "of chain guard in table inet sipa")
	s.says(found, doctor.OK, "port", "pbx3")
}

func (s *site) anotherKey() {
	text, err := os.ReadFile(s.Config)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := config.Load(s.Config)
	if err != nil {
		s.t.Fatal(err)
	}
	dir := s.t.TempDir()
	file, key := filepath.Join(dir, "sipalive.toml"), filepath.Join(dir, "key")
	other := strings.Replace(string(text), c.KeyFile, key, 1)
	if err := os.WriteFile(file, []byte(other), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(key, []byte(strings.Repeat("A", 43)+"=\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.says(s.ask(file), doctor.Error, "port", "pbx2", "sealed with another key")
}

// rule loads one at a hook of the first node, and returns what takes it away.
func (s *site) rule(hook, rule string) (undo func()) {
	s.t.Helper()
	s.nft(fmt.Sprintf("table inet sipa { chain guard { type filter hook %s priority 0; policy accept; %s; }; }", hook, rule))
	return func() { s.nft("delete table inet sipa") }
}

func (s *site) nft(text string) {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if out, err := s.Node(0).Run(ctx, "/usr/sbin/nft", text); err != nil {
		s.t.Fatalf("nft %s: %v\n%s", text, err, out)
	}
}

// wait polls the first node's status.
func (s *site) wait(what string, ok func(control.Status) bool) {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if err := lab.WaitFor(ctx, what, func() error {
		st, err := s.Client(0).Status(context.WithoutCancel(ctx))
		if err == nil && !ok(st) {
			err = fmt.Errorf("nodes %+v", st.Nodes)
		}
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
}
