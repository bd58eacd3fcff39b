// Package cluster runs sipalive on the lab: on every node a PBX and an agent as separate
// processes, all with one configuration file. The demo, the end-to-end tests and the
// benchmarks all use it.
package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"sipalive/config"
	"sipalive/control"
	"sipalive/test/lab"
)

// Options says what to run. Binary is required.
type Options struct {
	Binary string                             // the sipalive binary
	Nodes  []string                           // default pbx1, pbx2, pbx3
	IPv6   bool                               // the nodes have IPv6 addresses, and so have vip2, vip4 ...
	Paths  Paths                              // the networks by which the agents hear each other
	Spread bool                               // vip2, vip4 ... are on the management network (needs Paths other than Service)
	VIPs   int                                // default 2; vip1 prefers pbx1, vip2 pbx2, and so on
	VIPNet netip.Prefix                       // an IPv4 network for many VIPs, which the router gets a route to; default the nodes' own network
	Home   func(i int) int                    // the node, counted from 0, that the i-th VIP prefers, counted from 0
	TOML   string                             // added at the top of the file: [timing], [sip] ...
	VIP    func(i int) string                 // lines added to the i-th [[vip]], counted from 1
	Node   func(i int) string                 // lines added to the i-th [[node]], counted from 1
	PBX    func(h *lab.Host) (lab.Spec, bool) // default the binary's own; false: no PBX on this node
	Agent  func(lab.Spec) lab.Spec            // changes how the agents are started
	Prefix string                             // of the namespaces' names
	Ours   []netip.Addr                       // VIPs that a test configures itself
	Keys   bool                               // every node has its own key file: KeyFile
	Aside  []string                           // interfaces that a test changes by hand
}

// Paths says by which networks the agents hear each other.
type Paths int

// The paths. Probes ask SIP by the first network. The VIPs are on the service network,
// except with Spread.
const (
	Service             Paths = iota // the network of the VIPs
	Management                       // the management network, which carries nothing else
	Both                             // the network of the VIPs, and the management network as address2
	BothManagementFirst              // the management network, and the network of the VIPs as address2
)

// Cluster is a lab with sipalive on it.
type Cluster struct {
	*lab.Lab
	VIPs   []netip.Addr
	Config string // path of the file
	opts   Options
	agents []*lab.Process
	pbxes  []*lab.Process
	before [][]string // by node: the settings before its agent started, see Untouched
	dir    string
}

// VIPName returns the configured name of the i-th VIP, counted from 0.
func VIPName(i int) string { return fmt.Sprintf("vip%d", i+1) }

// Start builds the lab, writes key and configuration file, and starts a PBX and an agent
// on every node. It does not wait until the VIPs are held: see WaitHeld.
func Start(o Options) (*Cluster, error) {
	if o.VIPs == 0 {
		o.VIPs = 2
	}
	if len(o.Nodes) == 0 {
		o.Nodes = []string{"pbx1", "pbx2", "pbx3"}
	}
	dir, err := os.MkdirTemp(memoryDir(), "sipalive-lab-")
	if err != nil {
		return nil, err
	}
	labOptions := lab.Options{Management: o.Paths != Service, Nodes: o.Nodes, DataDir: dir, Prefix: o.Prefix}
	if o.IPv6 {
		labOptions.Subnet6 = netip.MustParsePrefix("fd77::/64")
	}
	l, err := lab.New(labOptions)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	c := &Cluster{Lab: l, opts: o, dir: dir, agents: make([]*lab.Process, len(o.Nodes)), pbxes: make([]*lab.Process, len(o.Nodes))}
	next := o.VIPNet.Addr()
	for i := range o.VIPs {
		switch {
		case o.VIPNet.IsValid():
			next = next.Next()
			c.VIPs = append(c.VIPs, next)
		case o.IPv6 && i%2 == 1:
			c.VIPs = append(c.VIPs, l.VIP6(i+1))
		case o.Spread && i%2 == 1:
			c.VIPs = append(c.VIPs, lab.OnManagement(l.VIP(i+1)))
		default:
			c.VIPs = append(c.VIPs, l.VIP(i+1))
		}
	}
	if err := c.begin(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// memoryDir returns a tmpfs if there is one: in production the runtime directory is on a
// tmpfs.
func memoryDir() string {
	const shm = "/dev/shm"
	var st syscall.Statfs_t
	const tmpfsMagic = 0x01021994
	if err := syscall.Statfs(shm, &st); err == nil && st.Type == tmpfsMagic {
		return shm
	}
	return os.TempDir()
}

func (c *Cluster) begin() error {
	if c.opts.VIPNet.IsValid() {
		if err := c.RouteToSwitch(c.opts.VIPNet); err != nil {
			return err
		}
	}
	if err := c.writeConfig(); err != nil {
		return err
	}
	for i := range c.opts.Nodes {
		if err := c.StartPBX(i); err != nil {
			return err
		}
		before, err := c.settings(i)
		if err != nil {
			return err
		}
		c.before = append(c.before, before)
		if err := c.StartAgent(i); err != nil {
			return err
		}
	}
	return nil
}

// Close ends every process and removes the lab and its files. It returns an error if the
// agents changed anything that is not theirs.
func (c *Cluster) Close() error {
	return errors.Join(c.Untouched(), c.Lab.Close(), os.RemoveAll(c.dir))
}

func (c *Cluster) writeConfig() error {
	key, err := config.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	keyFile := filepath.Join(c.dir, "key")
	files := []string{keyFile}
	if c.opts.Keys {
		keyFile, files = "/proc/self/cwd/key", nil // one configuration file for all: each agent runs in a directory of its own
		for i := range c.opts.Nodes {
			files = append(files, c.KeyFile(i))
		}
	}
	for _, f := range files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(f), 0o755), os.WriteFile(f, []byte(key+"\n"), 0o600)); err != nil {
			return err
		}
	}
	c.Config = filepath.Join(c.dir, "sipalive.toml")
	return os.WriteFile(c.Config, []byte(c.toml(keyFile)), 0o644)
}

func (c *Cluster) toml(keyFile string) string {
	s := fmt.Sprintf("cluster = \"demo\"\nkey_file = %q\n%s\n", keyFile, c.opts.TOML)
	for i, h := range c.Nodes() {
		address := h.Addr
		if c.opts.IPv6 {
			address = h.Addr6
		}
		second := h.Addr2
		if c.opts.Paths == Management || c.opts.Paths == BothManagementFirst {
			address, second = h.Addr2, address
		}
		s += fmt.Sprintf("[[node]]\nname = %q\naddress = %q\n", h.Name, address)
		if c.opts.Paths == Both || c.opts.Paths == BothManagementFirst {
			s += fmt.Sprintf("address2 = %q\n", second)
		}
		if c.opts.Node != nil {
			s += c.opts.Node(i+1) + "\n"
		}
	}
	for i, v := range c.VIPs {
		device := "eth0"
		if c.opts.Spread && i%2 == 1 {
			device = "eth1"
		}
		home := i % len(c.opts.Nodes)
		if c.opts.Home != nil {
			home = c.opts.Home(i)
		}
		s += fmt.Sprintf("[[vip]]\nname = %q\naddress = %q\ninterface = %q\nprefer = [%q]\n", VIPName(i), v, device, c.opts.Nodes[home])
		if c.opts.VIP != nil {
			s += c.opts.VIP(i+1) + "\n"
		}
	}
	return s
}

// RunDir returns a node's runtime directory.
func (c *Cluster) RunDir(i int) string { return filepath.Join(c.dir, "run-"+c.opts.Nodes[i]) }

// KeyFile returns a node's own key file. It exists with Options.Keys.
func (c *Cluster) KeyFile(i int) string { return filepath.Join(c.dir, "keys-"+c.opts.Nodes[i], "key") }

// StartAgent starts a node's agent.
func (c *Cluster) StartAgent(i int) (err error) {
	h := c.Node(i)
	spec := lab.Spec{Name: "agent-" + h.Name, Path: c.opts.Binary, Args: []string{"run", "-c", c.Config, "--run-dir", c.RunDir(i)}}
	if c.opts.Keys {
		spec.Dir = filepath.Dir(c.KeyFile(i))
	}
	if c.opts.Agent != nil {
		spec = c.opts.Agent(spec)
	}
	c.agents[i], err = h.Start(spec)
	return err
}

// StartPBX starts a node's SIP server.
func (c *Cluster) StartPBX(i int) (err error) {
	h := c.Node(i)
	spec := lab.Spec{Name: "pbx-" + h.Name, Path: c.opts.Binary, Args: []string{"demo-pbx", h.Name}}
	if c.opts.PBX != nil {
		var some bool
		if spec, some = c.opts.PBX(h); !some {
			return nil
		}
	}
	c.pbxes[i], err = h.Start(spec)
	return err
}

// Agent returns a node's agent process, nil if none was started.
func (c *Cluster) Agent(i int) *lab.Process { return c.agents[i] }

// PBX returns a node's SIP server process, nil if none was started.
func (c *Cluster) PBX(i int) *lab.Process { return c.pbxes[i] }

// Client returns a client of a node's agent.
func (c *Cluster) Client(i int) *control.Client { return control.NewClient(c.RunDir(i)) }

// Index returns the number of the node with this name, -1 if there is none.
func (c *Cluster) Index(name string) int {
	for i, n := range c.opts.Nodes {
		if n == name {
			return i
		}
	}
	return -1
}

// Holder asks a node's agent who holds the VIP with this index, counted from 0; "" means
// nobody.
func (c *Cluster) Holder(ctx context.Context, node, vip int) (string, error) {
	st, err := c.Client(node).Status(ctx)
	if err != nil {
		return "", err
	}
	return st.VIPs[vip].Holder, nil
}

// WaitHeld waits until a node's agent sees every VIP held and every listed node fit.
func (c *Cluster) WaitHeld(ctx context.Context, node int, fit ...string) error {
	return lab.WaitFor(ctx, "every VIP held", func() error {
		st, err := c.Client(node).Status(ctx)
		if err != nil {
			return err
		}
		for _, v := range st.VIPs {
			if v.State != "held" || v.Holder == "" {
				return fmt.Errorf("%s is %s: %s", v.Name, v.State, v.Reason)
			}
		}
		for _, n := range st.Nodes {
			for _, f := range fit {
				if n.Name == f && !n.Fit {
					return fmt.Errorf("%s is not fit: %s", n.Name, n.Why)
				}
			}
		}
		return nil
	})
}

// WaitHolder waits until a node's agent sees that holder holds the VIP with this index.
func (c *Cluster) WaitHolder(ctx context.Context, node, vip int, holder string) error {
	return lab.WaitFor(ctx, fmt.Sprintf("%s at %s", VIPName(vip), holder), func() error {
		st, err := c.Client(node).Status(ctx)
		if err != nil {
			return err
		}
		if v := st.VIPs[vip]; v.Holder != holder || v.State != "held" {
			return fmt.Errorf("%s is %s at %q: %s", v.Name, v.State, v.Holder, v.Reason)
		}
		return nil
	})
}

// Deadline returns a context for waiting, which ends after d.
func Deadline(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
