// Package doctor runs `sipalive doctor` on the nodes of a cluster: on a sound node, on
// nodes whose firewall drops the agents' port, on a node without an agent, and on one
// with another key.
package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sipalive/config"
	"sipalive/control"
	"sipalive/doctor"
	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

// binary is the path of sipalive as it is shipped, built once per run.
var binary string

func TestMain(m *testing.M) { os.Exit(shipped.Main(m, "e2e/doctor", &binary)) }

// patience bounds every wait for something that must come.
const patience = 90 * time.Second

// site is a cluster, together with the test of the current round.
type site struct {
	*cluster.Cluster
	t *testing.T
}

// scene is one node's trouble: how to make it, which file doctor reads, and what it must
// report.
type scene struct {
	name    string
	node    int
	prepare func(s *site) (undo func())
	file    func(s *site) string
	judge   func(s *site, found []doctor.Finding)
}

// The scenes of one round are on different nodes, so that doctor runs on all at once: a
// run takes four seconds, most of them to compare clocks.
var rounds = [][]scene{
	{
		{name: "sound", node: 0, prepare: settled, judge: sound},
		{name: "dropped on the way in", node: 1, prepare: (*site).dropIn, judge: droppedIn},
		{name: "dropped on the way out", node: 2, prepare: (*site).dropOut, judge: droppedOut},
	},
	{
		{name: "without an agent, dropped", node: 0, prepare: (*site).stopAndDrop, judge: without},
		{name: "another key", node: 3, prepare: func(s *site) func() { s.stop(3); return nil }, file: (*site).otherKey, judge: anotherKey},
	},
}

func TestDoctor(t *testing.T) {
	c, err := cluster.Start(cluster.Options{Binary: binary, Nodes: []string{"pbx1", "pbx2", "pbx3", "pbx4"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if err := c.WaitHeld(ctx, 0, "pbx1", "pbx2", "pbx3", "pbx4"); err != nil {
		t.Fatal(err)
	}
	for _, scenes := range rounds {
		(&site{c, t}).round(scenes)
	}
}

// round prepares all scenes, runs doctor on all nodes at once, and judges each result.
func (s *site) round(scenes []scene) {
	for _, sc := range scenes {
		if undo := sc.prepare(s); undo != nil {
			defer undo()
		}
	}
	visits := make([]visit, len(scenes))
	var all sync.WaitGroup
	for i, sc := range scenes {
		file := s.Config
		if sc.file != nil {
			file = sc.file(s)
		}
		all.Go(func() { visits[i] = s.ask(sc.node, file) })
	}
	all.Wait()
	for i, sc := range scenes {
		s.t.Run(sc.name, func(t *testing.T) {
			t.Logf("%s\n%s", s.Node(sc.node).Name, visits[i].text)
			if visits[i].err != nil {
				t.Fatal(visits[i].err)
			}
			sc.judge(&site{s.Cluster, t}, visits[i].found)
		})
	}
}

// visit is the result of one run of doctor.
type visit struct {
	found []doctor.Finding
	text  string
	err   error
}

// ask runs doctor on a node. The exit code must match the findings.
func (s *site) ask(node int, file string) (v visit) {
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	out, exit := s.Node(node).Run(ctx, binary, "doctor", "-c", file, "--run-dir", s.RunDir(node), "--json")
	v.text = out
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var f doctor.Finding
		if v.err = d.Decode(&f); v.err != nil {
			return v
		}
		v.found = append(v.found, f)
	}
	if wrong := doctor.Worst(v.found) == doctor.Error; len(v.found) == 0 || wrong != (exit != nil) {
		v.err = fmt.Errorf("errors: %t, exit: %v", wrong, exit)
	}
	return v
}

// says asserts that a finding of this check and level contains all these words.
func (s *site) says(found []doctor.Finding, level doctor.Level, check string, words ...string) {
	s.t.Helper()
	if !slices.ContainsFunc(found, func(f doctor.Finding) bool {
		all := f.Text + ". " + f.Do
		return f.Check == check && f.Level == level && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(all, w) })
	}) {
		s.t.Errorf("no %s of %s with %q", level, check, words)
	}
}

func settled(s *site) func() {
	s.wait(0, "the others answer pbx1, by the gateway too, and the router follows", func(st control.Status) bool {
		for _, n := range st.Nodes[1:] {
			if n.Answered == 0 || n.Relay != "known" || len(n.Views) < len(st.Nodes) {
				return false
			}
		}
		return st.VIPs[0].Router == "proven" && st.VIPs[1].Router == "proven"
	})
	s.wait(1, "pbx1 answers pbx2", func(st control.Status) bool { return st.Nodes[0].Answered != 0 })
	return nil
}

func sound(s *site, found []doctor.Finding) {
	for _, f := range found {
		if f.Level == doctor.Error {
			s.t.Errorf("nothing is wrong, but %+v", f)
		}
	}
	for _, node := range []string{"pbx2", "pbx3", "pbx4"} {
		s.says(found, doctor.OK, "port", node, "it answered over UDP", "and TCP is open")
		s.says(found, doctor.OK, "drift", node)
		s.says(found, doctor.OK, "relay", node, "the gateway relays")
		s.says(found, doctor.OK, "sip", "node "+node, "200 OK")
		s.says(found, doctor.OK, "sip", "pbx1: its PBX answers", node)
	}
	for _, vip := range []string{"vip1", "vip2"} {
		s.says(found, doctor.OK, "interface", vip, "eth0 is up")
		s.says(found, doctor.OK, "address", vip, "in a subnet of eth0")
		s.says(found, doctor.OK, "router", vip)
	}
	s.says(found, doctor.OK, "file", "cluster demo")
	s.says(found, doctor.OK, "key", "one key")
	s.says(found, doctor.OK, "node", "this is pbx1")
	s.says(found, doctor.OK, "agent", "hears a majority")
	s.says(found, doctor.OK, "capabilities", "the agent has")
	s.says(found, doctor.OK, "fence", "bpf")
	s.says(found, doctor.Warning, "realtime", "CPUSchedulingPolicy=rr") // the lab starts the agent as a plain process
	s.says(found, doctor.OK, "firewall", "lets port 7946 pass")
	s.says(found, doctor.OK, "keepers", "nothing else")
}

func (s *site) dropIn() func() {
	undo := s.rule(1, "input", "ip saddr "+s.Node(2).Addr.String()+" udp dport 7946 drop")
	s.wait(1, "pbx3 is not heard", func(st control.Status) bool { return !st.Nodes[2].Alive })
	return undo
}

func droppedIn(s *site, found []doctor.Finding) {
	s.says(found, doctor.Error, "port", "pbx3", "TCP is open, and no heartbeat is heard", "rule ", "of chain guard in table inet sipa")
	s.says(found, doctor.Error, "firewall", "of chain guard in table inet sipa", "drops UDP from pbx3 port 7946")
	s.says(found, doctor.OK, "port", "pbx1")
}

func (s *site) dropOut() func() {
	return s.rule(2, "output", "ip daddr "+s.Node(1).Addr.String()+" udp dport 7946 reject")
}

func droppedOut(s *site, found []doctor.Finding) {
	s.says(found, doctor.Warning, "firewall", "of chain guard in table inet sipa", "drops UDP to pbx2 port 7946")
}

// stop stops a node's agent as an operator does. Its control socket goes before its port
// is free, so stop waits for the process. The agent exits with 10.
func (s *site) stop(node int) {
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if _, err := s.Client(node).Do(ctx, control.Command{Kind: control.Stop}); err != nil {
		s.t.Fatal(err)
	}
	if _ = s.Agent(node).Wait(ctx); ctx.Err() != nil {
		s.t.Fatalf("the agent has not ended: %v", ctx.Err())
	}
}

func (s *site) stopAndDrop() func() {
	s.stop(0)
	return s.rule(0, "input", "ip saddr "+s.Node(1).Addr.String()+" udp dport 7946 drop")
}

func without(s *site, found []doctor.Finding) {
	s.says(found, doctor.Error, "port", "pbx2", "TCP is open, but nothing is heard over UDP", "of chain guard in table inet sipa")
	s.says(found, doctor.OK, "port", "pbx3", "reached over UDP and TCP, and it reaches this node")
	s.says(found, doctor.Error, "port", "pbx4") // either nobody is there, or another doctor with its own key
	s.says(found, doctor.Warning, "agent", "systemctl start sipalive")
}

// otherKey returns a copy of the cluster's file that names another key.
func (s *site) otherKey() string {
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
	return file
}

func anotherKey(s *site, found []doctor.Finding) {
	s.says(found, doctor.Error, "port", "pbx2", "sealed with another key")
}

// rule loads a rule at a hook of a node, and returns a function that deletes it.
func (s *site) rule(node int, hook, rule string) (undo func()) {
	s.t.Helper()
	s.nft(node, fmt.Sprintf("table inet sipa { chain guard { type filter hook %s priority 0; policy accept; %s; }; }", hook, rule))
	return func() { s.nft(node, "delete table inet sipa") }
}

func (s *site) nft(node int, text string) {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if out, err := s.Node(node).Run(ctx, "/usr/sbin/nft", text); err != nil {
		s.t.Fatalf("nft %s: %v\n%s", text, err, out)
	}
}

// wait waits until a node's status is good.
func (s *site) wait(node int, what string, ok func(control.Status) bool) {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if err := lab.WaitFor(ctx, what, func() error {
		st, err := s.Client(node).Status(context.WithoutCancel(ctx))
		if err == nil && !ok(st) {
			err = fmt.Errorf("nodes %+v", st.Nodes)
		}
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
}
