// Package host judges from outside what an agent does to its machine when others change
// addresses and interfaces under it, when its configuration changes, and when the agent
// itself is frozen. Everything but the VIPs must be the same before and after.
package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sipalive/config"
	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

const (
	patience = 30 * time.Second
	lease    = time.Second // the default
	// late is how much longer something may take on a machine that is busy with other
	// things. The actual time is printed.
	late = time.Second
)

// site is four machines and the observers. The file may name fewer nodes.
type site struct {
	*cluster.Cluster
	t         *testing.T
	file      string
	addresses *lab.AddressObserver
	phones    map[string]*lab.SIPObserver // by VIP
	options
}

// options say what a site's file contains besides nodes and VIPs; agent changes how an
// agent is started.
type options struct {
	top    string // lines at the top of the file
	timing string // lines of [timing]
	vip    string // lines of each [[vip]]
	agent  func(lab.Spec) lab.Spec
}

// vipAt is a VIP in the test's file.
type vipAt struct{ name, address, dev, prefer string }

var (
	vip1 = vipAt{"vip1", "10.77.0.101", "eth0", "pbx1"}
	vip2 = vipAt{"vip2", "10.77.0.102", "eth0", "pbx2"}
	vip3 = vipAt{"vip3", "10.77.0.103", "eth0", "pbx3"}
	// The interface has no cable and no neighbour: ARP for this VIP is answered on eth0.
	apart = vipAt{"apart", "10.77.0.104", "vip0", "pbx1"}
)

func (v vipAt) ip() netip.Addr { return netip.MustParseAddr(v.address) }

// write writes the file, with this many nodes.
func (s *site) write(nodes int, vips ...vipAt) {
	s.t.Helper()
	text := fmt.Sprintf("cluster = \"host\"\nkey_file = %q\n%s\n[timing]\nhold_down = \"0s\"\nsettle = \"1s\"\n%s\n", s.file+".key", s.top, s.timing)
	for i := range nodes {
		text += fmt.Sprintf("[[node]]\nname = \"pbx%d\"\naddress = \"10.77.0.%d\"\n", i+1, 11+i)
	}
	for _, v := range vips {
		text += fmt.Sprintf("[[vip]]\nname = %q\naddress = %q\ninterface = %q\nprefer = [%q]\n%s", v.name, v.address, v.dev, v.prefer, s.vip)
	}
	must(s.t, os.WriteFile(s.file, []byte(text), 0o644))
}

// start starts three of the four nodes, with a file that has these VIPs.
func start(t *testing.T, o options, vips ...vipAt) *site {
	t.Helper()
	s := &site{t: t, options: o, file: filepath.Join(t.TempDir(), "sipalive.toml"), phones: map[string]*lab.SIPObserver{}}
	key, err := config.GenerateKey(rand.Reader)
	must(t, err)
	must(t, os.WriteFile(s.file+".key", []byte(key+"\n"), 0o600))
	s.write(3, vips...)
	s.Cluster, err = cluster.Start(cluster.Options{
		Binary: binary, Nodes: []string{"pbx1", "pbx2", "pbx3", "pbx4"},
		Ours: []netip.Addr{vip1.ip(), vip2.ip(), vip3.ip(), apart.ip()}, Aside: []string{"vip0", "vip0x", "elsewhere0"},
		PBX: func(h *lab.Host) (lab.Spec, bool) {
			must(t, furnish(h))
			return lab.Spec{Name: "pbx-" + h.Name, Path: binary, Args: []string{"demo-pbx", h.Name}}, true
		},
		Agent: func(spec lab.Spec) lab.Spec {
			spec.Args[slices.Index(spec.Args, "-c")+1] = s.file
			if s.agent != nil {
				spec = s.agent(spec)
			}
			return spec
		},
	})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			s.explain()
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	s.addresses, err = s.ObserveAddresses()
	must(t, err)
	for _, v := range vips {
		s.listen(v)
	}
	s.rest(3, vips...)
	return s
}

// furnish gives a machine an address, routes in two tables and an interface that are not
// the agent's.
func furnish(h *lab.Host) error {
	foreign := h.Addr.As4()
	foreign[3] += 140
	return h.Do(func() error {
		for _, args := range []string{
			"addr add " + netip.AddrFrom4(foreign).String() + "/32 dev eth0",
			"link add vip0 type veth peer name vip0x", "link set vip0x up", "link set vip0 up",
			"route add 198.51.100.0/24 dev eth0",
			"route add 203.0.113.0/24 dev eth0 table 77", "rule add from 203.0.113.7 table 77",
		} {
			if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %s: %w: %s", args, err, out)
			}
		}
		return nil
	})
}

// ip runs ip on a node.
func (s *site) ip(node int, args string) string {
	s.t.Helper()
	var out []byte
	must(s.t, s.Node(node).Do(func() (err error) {
		out, err = exec.Command("ip", strings.Fields(args)...).Output()
		if failed, is := errors.AsType[*exec.ExitError](err); is {
			err = fmt.Errorf("ip %s: %w: %s", args, err, failed.Stderr)
		}
		return err
	}))
	return string(out)
}

// untouched asserts, already before the end of the test, that nothing but VIPs has
// changed on any node.
func (s *site) untouched() {
	s.t.Helper()
	if err := s.Untouched(); err != nil {
		s.t.Error(err)
	}
}

func (s *site) listen(v vipAt) {
	s.t.Helper()
	phone, err := s.Phone().ObserveSIP(netip.AddrPortFrom(v.ip(), 5060), 0)
	must(s.t, err)
	s.phones[v.name] = phone
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *site) await(what string, good func(ctx context.Context) error) {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	must(s.t, lab.WaitFor(ctx, what, func() error { return good(ctx) }))
}

// rest waits until the first nodes agree that all is well, and the phone hears each VIP
// at home.
func (s *site) rest(nodes int, vips ...vipAt) {
	s.t.Helper()
	for i := range nodes {
		s.await(fmt.Sprintf("pbx%d at rest", i+1), func(ctx context.Context) error {
			st, err := s.Client(i).Status(ctx)
			if err != nil {
				return err
			}
			return unrest(st, nodes, len(vips))
		})
	}
	for _, v := range vips {
		s.home(v)
	}
}

func unrest(st control.Status, nodes, vips int) error {
	if len(st.Nodes) != nodes || len(st.VIPs) != vips || !st.Quorum || st.Waiting != "" {
		return fmt.Errorf("%+v", st)
	}
	for _, n := range st.Nodes {
		if !n.Alive || !n.Fit || n.ConfigDiffers {
			return fmt.Errorf("%+v", n)
		}
	}
	for _, v := range st.VIPs {
		if v.State != "held" || !v.Verified {
			return fmt.Errorf("%+v", v)
		}
	}
	return nil
}

// home waits until a VIP is served at its preferred node, and moves it there if
// necessary.
func (s *site) home(v vipAt) {
	s.t.Helper()
	s.await(v.name+" at "+v.prefer, func(ctx context.Context) error {
		h, err := s.holder(ctx, 1, v)
		if err == nil && h != v.prefer {
			out, moveErr := s.Node(1).Run(ctx, binary, "move", v.name, v.prefer, "--run-dir", s.RunDir(1))
			err = errors.Join(fmt.Errorf("it is at %q: %s", h, out), moveErr)
		}
		return err
	})
	if v.dev != "eth0" {
		return // its announcements do not reach the phone
	}
	since := lab.Now()
	s.await("the phone hears "+v.prefer+" at "+v.name, func(context.Context) error {
		if last, ok := s.phones[v.name].Last(); !ok || last.Server != v.prefer || last.Sent < since {
			return fmt.Errorf("last answer from %q", last.Server)
		}
		return nil
	})
}

func (s *site) holder(ctx context.Context, node int, v vipAt) (string, error) {
	st, err := s.Client(node).Status(ctx)
	if err != nil {
		return "", err
	}
	for _, have := range st.VIPs {
		if have.Name == v.name {
			return have.Holder, nil
		}
	}
	return "", fmt.Errorf("%s does not know %s", st.Node, v.name)
}

// epochs returns every VIP's epoch as a node knows it.
func (s *site) epochs(node int) map[string]uint64 {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	st, err := s.Client(node).Status(ctx)
	must(s.t, err)
	epochs := map[string]uint64{}
	for _, v := range st.VIPs {
		epochs[v.Name] = v.Epoch
	}
	return epochs
}

// command runs the binary on a node, as its administrator would.
func (s *site) command(node int, args ...string) (out, stderr string, code int) {
	s.t.Helper()
	var o, e bytes.Buffer
	must(s.t, s.Node(node).Do(func() error {
		cmd := exec.Command(binary, args...)
		cmd.Stdout, cmd.Stderr = &o, &e
		err := cmd.Run()
		if cmd.ProcessState == nil {
			return err
		}
		code = cmd.ProcessState.ExitCode()
		return nil
	}))
	return o.String(), e.String(), code
}

// undisturbed asserts that only one server answered the phone, and that no host bound or
// unbound the address.
func (s *site) undisturbed(since time.Duration, vips ...vipAt) {
	s.t.Helper()
	time.Sleep(100 * time.Millisecond) // the last answers are still on their way
	for _, v := range vips {
		r := s.phones[v.name].Report(since, lab.Now()-100*time.Millisecond)
		s.t.Logf("%s: %v", v.name, r)
		if r.By[v.prefer] != r.Answered || r.Lost > r.Sent/1000 {
			s.t.Errorf("%s: %d lost of %d, answers by %v", v.name, r.Lost, r.Sent, r.By)
		}
		events, err := s.addresses.Events()
		must(s.t, err)
		for _, e := range events {
			if e.At >= since && e.Addr == v.ip() {
				s.t.Errorf("%s: bound %t on %s at %v", v.name, e.Bound, e.Host, e.At)
			}
		}
	}
}

// boundOn lists the hosts that have an address.
func (s *site) boundOn(v vipAt) (hosts []string) {
	s.t.Helper()
	intervals, err := s.addresses.Intervals(v.ip())
	must(s.t, err)
	for _, i := range intervals {
		if i.To == 0 {
			hosts = append(hosts, i.Host)
		}
	}
	return hosts
}

func (s *site) explain() {
	for i := range s.Nodes() {
		if p := s.Agent(i); p != nil {
			s.t.Logf("%s:\n%s", s.Node(i).Name, p.LastWords())
		}
	}
}
