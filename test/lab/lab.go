package lab

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
)

// Options says what to build. The zero value is three nodes, pbx1 to pbx3.
type Options struct {
	Prefix     string       // start of every name that the lab makes; default "sipa"; lower-case letters and digits
	RunID      string       // tells the labs of this process apart; default random; lower-case letters and digits
	Nodes      []string     // node names; default pbx1, pbx2, pbx3
	Subnet     netip.Prefix // network of the switch, an IPv4 /24; default 10.77.0.0/24; the phone's network is the next /24
	Subnet6    netip.Prefix // IPv6 network of the switch, a /64; default: no IPv6; the phone's network is the next /64
	Management bool         // build a second switch, to which only the nodes' eth1 are connected
	DataDir    string       // where the output of processes goes; default a new directory, which Close removes
}

// Lab is a running data centre. Its methods may be called from several
// goroutines at once.
type Lab struct {
	run        runName
	subnet     netip.Prefix
	management bool
	subnet6    netip.Prefix // invalid: no IPv6
	dataDir    string
	ownData    bool
	bridge     *namespace
	bridgeDev  netlink.Link
	nodes      []*Host
	router     *Host
	phone      *Host
	all        []*namespace

	faults faults

	mu        sync.Mutex
	processes []*Process
	logs      map[string]int
	observers []interface{ Stop() }
	closed    bool
}

// nodeName limits a node's name: its switch port has the same name, and must be a valid
// interface name.
var nodeName = regexp.MustCompile(`^[a-z][a-z0-9]{0,11}$`)

// New removes what dead runs left behind, then builds the data centre. It needs root.
// When New returns, every switch port forwards.
func New(opts Options) (*Lab, error) {
	l, err := plan(opts)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if _, err := Sweep(l.run.prefix); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := l.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: %w", err), l.Close())
	}
	return l, nil
}

// plan checks the options and fills in a Lab. It creates nothing yet.
func plan(opts Options) (*Lab, error) {
	if opts.Prefix == "" {
		opts.Prefix = "sipa"
	}
	if opts.RunID == "" {
		b := make([]byte, 4)
		_, _ = rand.Read(b) // never fails since Go 1.24
		opts.RunID = hex.EncodeToString(b)
	}
	if len(opts.Nodes) == 0 {
		opts.Nodes = []string{"pbx1", "pbx2", "pbx3"}
	}
	if !opts.Subnet.IsValid() {
		opts.Subnet = netip.MustParsePrefix("10.77.0.0/24")
	}
	start, err := startTime(os.Getpid())
	if err != nil {
		return nil, err
	}
	run := runName{opts.Prefix, os.Getpid(), start, opts.RunID}
	if parsed, ok := parseRunName(run.String()); !ok || parsed != run {
		return nil, fmt.Errorf("prefix %q or run id %q: want lower-case letters and digits, the prefix starting with a letter", opts.Prefix, opts.RunID)
	}
	if s := opts.Subnet; !s.Addr().Is4() || s.Bits() != 24 || s != s.Masked() {
		return nil, fmt.Errorf("subnet %v: want an IPv4 /24 such as 10.77.0.0/24", s)
	}
	if s := opts.Subnet6; s.IsValid() && (!s.Addr().Is6() || s.Bits() != 64 || s != s.Masked()) {
		return nil, fmt.Errorf("subnet %v: want an IPv6 /64 such as fd77::/64", s)
	}
	if len(opts.Nodes) > 80 {
		return nil, fmt.Errorf("%d nodes: at most 80 fit between .11 and .90", len(opts.Nodes))
	}
	l := &Lab{run: run, subnet: opts.Subnet, subnet6: opts.Subnet6, management: opts.Management, dataDir: opts.DataDir, logs: map[string]int{}}
	l.faults.init()
	l.router = &Host{lab: l, Name: "router", Addr: l.address(1)}
	l.phone = &Host{lab: l, Name: "phone", Addr: l.phoneAddress(100)}
	for i, name := range opts.Nodes {
		if !nodeName.MatchString(name) || name == "switch" || name == "router" || name == "phone" || slices.Index(opts.Nodes, name) != i {
			return nil, fmt.Errorf("node name %q: want up to 12 lower-case letters and digits, unlike every other host's name", name)
		}
		l.nodes = append(l.nodes, &Host{lab: l, Name: name, Addr: l.address(byte(11 + i))})
	}
	for _, h := range l.Hosts() {
		h.MAC = macOf(h.Addr)
		if l.subnet6.IsValid() {
			h.Addr6 = l.address6(h.Addr)
		}
	}
	return l, nil
}

// macOf makes a locally administered MAC that contains the host's IPv4 address.
func macOf(a netip.Addr) net.HardwareAddr {
	ip := a.As4()
	return net.HardwareAddr{0x02, 0x00, ip[0], ip[1], ip[2], ip[3]}
}

func (l *Lab) address(host byte) netip.Addr {
	ip := l.subnet.Addr().As4()
	ip[3] = host
	return netip.AddrFrom4(ip)
}

func (l *Lab) phoneAddress(host byte) netip.Addr {
	ip := l.subnet.Addr().As4()
	ip[2]++
	ip[3] = host
	return netip.AddrFrom4(ip)
}

// address6 returns the IPv6 address with the same last byte as an IPv4 address, in the
// network of the switch or of the phone.
func (l *Lab) address6(a netip.Addr) netip.Addr {
	like, ip := a.As4(), l.subnet6.Addr().As16()
	if !l.subnet.Contains(a) {
		ip[7]++
	}
	ip[15] = like[3]
	return netip.AddrFrom16(ip)
}

// VIP6 returns a free IPv6 address for the i-th floating IP, counted from 1.
func (l *Lab) VIP6(i int) netip.Addr { return l.address6(l.VIP(i)) }

// Node returns the i-th node, counted from 0. Node 0 is at .11.
func (l *Lab) Node(i int) *Host { return l.nodes[i] }

// Nodes returns the nodes in order.
func (l *Lab) Nodes() []*Host { return slices.Clone(l.nodes) }

// Router returns the router: .1 on the switch, and the phone's gateway.
func (l *Lab) Router() *Host { return l.router }

// Phone returns the phone, which reaches the switch only through the router.
func (l *Lab) Phone() *Host { return l.phone }

// Hosts returns router, phone and nodes.
func (l *Lab) Hosts() []*Host { return append([]*Host{l.router, l.phone}, l.nodes...) }

// VIP returns a free IPv4 address for the i-th floating IP, counted from 1 up to 99: .101
// and on.
func (l *Lab) VIP(i int) netip.Addr { return l.address(byte(100 + i)) }

// Gateway returns the nodes' default gateway, the router's address on the switch.
func (l *Lab) Gateway() netip.Addr { return l.router.Addr }

// Subnet returns the switch's network.
func (l *Lab) Subnet() netip.Prefix { return l.subnet }

// DataDir returns the directory for the output of the lab's processes.
func (l *Lab) DataDir() string { return l.dataDir }

// RunName returns the start of all names of this run, e.g. sipa-4242-1k3f-9c0d22aa.
func (l *Lab) RunName() string { return l.run.String() }

// hostByMAC returns the name of the host with this MAC, or the MAC itself if no host has
// it.
func (l *Lab) hostByMAC(mac net.HardwareAddr) string {
	for _, h := range l.Hosts() {
		if slices.Equal(h.MAC, mac) {
			return h.Name
		}
	}
	return mac.String()
}

// Close stops the observers, ends every process and removes the namespaces. It also
// removes the data directory if New made it. Processes that a human started inside a
// namespace end too. Close may be called more than once and from any goroutine, e.g. one
// that waits for a signal: the first call does the work, later calls wait for it and
// return nil.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	for _, o := range l.observers {
		o.Stop()
	}
	for _, p := range l.processes {
		p.kill()
	}
	for _, p := range l.processes {
		<-p.done
	}
	ids := map[namespaceID]bool{}
	for _, n := range l.all {
		ids[n.id] = true
	}
	errs := []error{endProcessesIn(ids)}
	for _, n := range l.all {
		errs = append(errs, n.remove())
	}
	if l.ownData {
		errs = append(errs, os.RemoveAll(l.dataDir))
	}
	return errors.Join(errs...)
}

// register adds an observer for Close to stop. It fails if the lab is closed.
func (l *Lab) register(o interface{ Stop() }) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("observe: the lab is closed")
	}
	l.observers = append(l.observers, o)
	return nil
}

func (l *Lab) makeDataDir() error {
	if l.dataDir == "" {
		l.dataDir, l.ownData = filepath.Join(os.TempDir(), l.run.String()), true
	}
	if err := os.MkdirAll(l.dataDir, 0o755); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	return nil
}
