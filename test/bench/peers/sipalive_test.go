package peers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

type sipalive struct {
	*cluster.Cluster
	beat time.Duration
}

// shortest returns the shortest lease that the configuration allows with a heartbeat, in
// whole ms: lease*0.999 - max(10ms, lease/20) must be two heartbeats.
func shortest(heartbeat time.Duration) time.Duration {
	for lease := 2 * heartbeat; ; lease += time.Millisecond {
		if lease-lease/1000-max(10*time.Millisecond, lease/20) >= 2*heartbeat {
			return lease
		}
	}
}

func startSipalive(beat time.Duration) (tool, error) {
	toml := "[timing]\nhold_down = \"0s\"\n"
	if beat > 0 {
		toml += fmt.Sprintf("heartbeat = %q\nlease = %q\n", beat, shortest(beat))
	} else {
		beat = 200 * time.Millisecond
	}
	_, policy, err := shipped.Policy()
	if err != nil {
		return nil, err
	}
	asUnit := func(spec lab.Spec) lab.Spec { return spec.By(policy...) }
	c, err := cluster.Start(cluster.Options{Binary: binary, TOML: toml, Agent: asUnit})
	if err != nil {
		return nil, err
	}
	return &sipalive{c, beat}, nil
}

func (s *sipalive) data() *lab.Lab           { return s.Lab }
func (s *sipalive) vips() []netip.Addr       { return s.VIPs }
func (s *sipalive) heartbeat() time.Duration { return s.beat }

func (s *sipalive) version() string {
	out, err := exec.Command("git", "describe", "--tags", "--always").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func (s *sipalive) pbx(node int) *lab.Process      { return s.PBX(node) }
func (s *sipalive) startPBX(node int) error        { return s.StartPBX(node) }
func (s *sipalive) agents(node int) []*lab.Process { return []*lab.Process{s.Agent(node)} }
func (s *sipalive) startAgents(node int) error     { return s.StartAgent(node) }
func (s *sipalive) unmove() error                  { return nil }
func (s *sipalive) close() error                   { return s.Close() }

func (s *sipalive) move() error {
	return s.command(control.Command{Kind: control.Move, VIP: "vip1", Node: "pbx3"})
}

// goHome moves each VIP itself: a failback brings no VIP to a node whose link was lost.
func (s *sipalive) goHome() error {
	st, err := s.Client(1).Status(context.Background())
	if err != nil {
		return err
	}
	for v, vip := range st.VIPs {
		if home := s.Node(v).Name; vip.Holder != home {
			err = errors.Join(err, s.command(control.Command{Kind: control.Move, VIP: vip.Name, Node: home}))
		}
	}
	return err
}

func (s *sipalive) command(c control.Command) error {
	_, err := s.Client(1).Do(context.Background(), c) // ask a node that no fault hits
	return err
}

func (s *sipalive) rest(ctx context.Context) error {
	for i := range s.Nodes() {
		st, err := s.Client(i).Status(ctx)
		if err != nil {
			return err
		}
		for _, n := range st.Nodes {
			if !n.Alive || !n.Fit || n.HeldDown {
				return fmt.Errorf("%s says %+v", st.Node, n)
			}
		}
		for _, v := range st.VIPs {
			if v.State != "held" || !v.Verified {
				return fmt.Errorf("%s says %+v", st.Node, v)
			}
		}
	}
	return nil
}
