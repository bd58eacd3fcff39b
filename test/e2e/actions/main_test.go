// Package actions tests takeovers with actions that fail, hang and are cut off, on real
// agents in network namespaces.
package actions

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

// binary is the path of sipalive as it is shipped, built once per run.
var binary string

func TestMain(m *testing.M) { os.Exit(shipped.Main(m, "e2e/actions", &binary)) }

// patience bounds every wait for something that must come.
const patience = 20 * time.Second

// calm lets a node that came back hold at once, and leaves time to restart an agent
// within its lease.
const calm = "[timing]\nlease = \"3s\"\nhold_down = \"0s\"\n"

// site is a cluster whose actions record what they were told.
type site struct {
	*cluster.Cluster
	t      *testing.T
	record string
}

// note is an action program that records one line per run, with its first argument.
const note = `#!/bin/sh
echo "$SIPALIVE_NODE $SIPALIVE_EVENT $SIPALIVE_VIP $SIPALIVE_EPOCH $1" >> RECORD
`

func start(t *testing.T, o cluster.Options, vip func(s *site) string) *site {
	t.Helper()
	s := &site{t: t, record: filepath.Join(t.TempDir(), "record")}
	o.Binary = binary
	if o.TOML == "" {
		o.TOML = calm
	}
	if o.VIPs == 0 {
		o.VIPs = 1
	}
	if vip != nil {
		o.VIP = func(int) string { return vip(s) }
	}
	c, err := cluster.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Cluster = c
	t.Cleanup(func() {
		if t.Failed() {
			s.explain()
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	var names []string
	for _, h := range c.Nodes() {
		names = append(names, h.Name)
	}
	for i := range names {
		s.must(c.WaitHeld(ctx, i, names...))
	}
	return s
}

// explain logs the end of every agent's log.
func (s *site) explain() {
	for i := range s.Nodes() {
		s.t.Logf("%s:\n%s", s.Node(i).Name, s.Agent(i).LastWords())
	}
	s.t.Logf("record:\n%s", strings.Join(s.lines(), "\n"))
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// script writes a program and returns its path. RECORD in it stands for the record's
// path.
func (s *site) script(name, text string) string {
	s.t.Helper()
	path := filepath.Join(filepath.Dir(s.record), name)
	s.must(os.WriteFile(path, []byte(strings.ReplaceAll(text, "RECORD", s.record)), 0o755))
	return path
}

// action returns one [[vip.action]].
func action(on string, lines string, argv ...string) string {
	quoted := make([]string, len(argv))
	for i, a := range argv {
		quoted[i] = fmt.Sprintf("%q", a)
	}
	return fmt.Sprintf("[[vip.action]]\non = %q\nexec = [%s]\n%s\n", on, strings.Join(quoted, ", "), lines)
}

func (s *site) lines() []string {
	text, err := os.ReadFile(s.record)
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// recorded waits until the record has a line.
func (s *site) recorded(line string) {
	s.t.Helper()
	s.await("the action "+line, func(context.Context) error {
		if !slices.Contains(s.lines(), line) {
			return fmt.Errorf("%q", s.lines())
		}
		return nil
	})
}

// count returns how often a line is in the record.
func (s *site) count(line string) (n int) {
	for _, l := range s.lines() {
		if l == line {
			n++
		}
	}
	return n
}

func (s *site) await(what string, good func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	s.must(lab.WaitFor(ctx, what, func() error { return good(ctx) }))
}

func (s *site) status(node int) control.Status {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	st, err := s.Client(node).Status(ctx)
	s.must(err)
	return st
}

func (s *site) do(node int, c control.Command) (string, error) {
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	return s.Client(node).Do(ctx, c)
}

// move moves a VIP and returns the new epoch.
func (s *site) move(vip, node string) uint64 {
	s.t.Helper()
	_, err := s.do(0, control.Command{Kind: control.Move, VIP: vip, Node: node})
	s.must(err)
	for _, v := range s.status(0).VIPs {
		if v.Name == vip {
			return v.Epoch
		}
	}
	s.t.Fatalf("no %s in the status", vip)
	return 0
}

func (s *site) dead(node int) bool {
	select {
	case <-s.Agent(node).Done():
		return true
	default:
		return false
	}
}

// holder waits until every live node sees vip1 held by one of the nodes and its takeover
// ended, verified or not.
func (s *site) holder(nodes ...string) control.VIPStatus {
	s.t.Helper()
	var v control.VIPStatus
	s.await("vip1 at "+strings.Join(nodes, " or "), func(context.Context) error {
		for i := range s.Nodes() {
			if s.dead(i) {
				continue
			}
			v = s.status(i).VIPs[0]
			if v.State != "held" || !slices.Contains(nodes, v.Holder) || v.Unchecked {
				return fmt.Errorf("%s: %s at %q, unchecked %v", s.Node(i).Name, v.State, v.Holder, v.Unchecked)
			}
		}
		return nil
	})
	return v
}
