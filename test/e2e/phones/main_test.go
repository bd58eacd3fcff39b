// Package phones tests that phones connected by TCP survive takeovers: plain, with TLS,
// over IPv6, and behind a NAT that tracks connections.
package phones

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

// binary is the path of sipalive as it is shipped, built once per run.
var binary string

func TestMain(m *testing.M) { os.Exit(shipped.Main(m, "e2e/phones", &binary)) }

// patience bounds every wait for something that must come.
const patience = 30 * time.Second

type site struct {
	*cluster.Cluster
	t *testing.T
}

// start starts three nodes with servers for phones and waits until they are at rest. vip1
// is IPv4, vip2 is IPv6, and pbx1 holds both.
func start(t *testing.T) *site {
	t.Helper()
	c, err := cluster.Start(cluster.Options{Binary: binary, IPv6: true, TOML: "[timing]\nhold_down = \"0s\"\n"})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{c, t}
	var before []uint64
	t.Cleanup(func() {
		if t.Failed() {
			for i := range s.Nodes() {
				t.Logf("%s:\n%s", s.Node(i).Name, s.Agent(i).LastWords())
			}
		}
		for i, n := range s.fragments() {
			if i < len(before) && n != before[i] {
				t.Errorf("%s sent %d fragments where the MTU is 1280", s.Node(i).Name, n-before[i])
			}
		}
		s.must(c.Close())
	})
	s.must(s.SetMTU(1280))
	before = s.fragments()
	s.servers()
	s.atRest()
	s.move("vip2", "pbx1")
	return s
}

// fragments counts, by node, the fragments that the kernel made of datagrams too large
// for a link.
func (s *site) fragments() (made []uint64) {
	s.t.Helper()
	for _, h := range s.Nodes() {
		var sum uint64
		s.must(h.Do(func() error {
			v4, err := os.ReadFile("/proc/thread-self/net/snmp")
			v6, err6 := os.ReadFile("/proc/thread-self/net/snmp6")
			if err = errors.Join(err, err6); err != nil {
				return err
			}
			lines := strings.Split(string(v4), "\n") // a line of names, a line of figures; those of Ip come first
			n, found := field(strings.Fields(lines[0]), strings.Fields(lines[1]), "FragCreates")
			names, figures := []string(nil), []string(nil)
			for _, f := range slices.Collect(slices.Chunk(strings.Fields(string(v6)), 2)) {
				names, figures = append(names, f[0]), append(figures, f[1])
			}
			n6, found6 := field(names, figures, "Ip6FragCreates")
			if !found || !found6 {
				return fmt.Errorf("no counts of fragments in\n%s\n%s", v4, v6)
			}
			sum = n + n6
			return nil
		}))
		made = append(made, sum)
	}
	return made
}

func field(names, figures []string, name string) (uint64, bool) {
	i := slices.Index(names, name)
	if i < 0 || i >= len(figures) {
		return 0, false
	}
	n, err := strconv.ParseUint(figures[i], 10, 64)
	return n, err == nil
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) await(what string, f func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	s.must(lab.WaitFor(ctx, what, func() error { return f(ctx) }))
}

func (s *site) atRest() {
	s.t.Helper()
	for i := range s.Nodes() {
		s.await("every VIP held", func(ctx context.Context) error { return s.WaitHeld(ctx, i, "pbx1", "pbx2", "pbx3") })
	}
}

// move moves a VIP.
func (s *site) move(vip, to string) {
	s.t.Helper()
	s.run(s.Node(0), binary, "move", "--run-dir", s.RunDir(0), vip, to)
}

// run runs a program on a host.
func (s *site) run(h *lab.Host, path string, args ...string) {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if out, err := h.Run(ctx, path, args...); err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
}

// nft loads rules into a host's namespace.
func (s *site) nft(h *lab.Host, rules string) {
	s.t.Helper()
	path := s.t.TempDir() + "/rules"
	s.must(os.WriteFile(path, []byte(rules), 0o644))
	s.run(h, "nft", "-f", path)
}

// held waits until another node than not says that it holds a VIP itself, and returns
// when that was.
func (s *site) held(vip int, not string) time.Duration {
	s.t.Helper()
	s.await("another holder", func(ctx context.Context) error {
		for i, h := range s.Nodes() {
			if h.Name == not {
				continue
			}
			if name, err := s.Holder(ctx, i, vip); err != nil || name == h.Name {
				return err
			}
		}
		return errors.New("none")
	})
	return lab.Now()
}

// holder returns who holds a VIP, as the second node knows it.
func (s *site) holder(vip int) (name string) {
	s.t.Helper()
	s.await("a holder", func(ctx context.Context) (err error) {
		if name, err = s.Holder(ctx, 1, vip); err == nil && name == "" {
			err = errors.New("nobody")
		}
		return err
	})
	return name
}

func tail(s string) string { return strings.TrimSpace(s[max(0, len(s)-2000):]) }
