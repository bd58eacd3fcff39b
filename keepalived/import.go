package keepalived

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Node is a machine of the cluster.
type Node struct {
	Name    string
	Address netip.Addr
}

// Options are the facts that a keepalived.conf does not contain.
type Options struct {
	File    string // only for the heading
	Cluster string // "": "pbx"
	KeyFile string // "": "/etc/sipalive/key"
	// Nodes, if not empty, are all nodes, and the file's peers are ignored. The first one
	// is the machine that the file is from, unless unicast_src_ip is another node's
	// address.
	Nodes []Node
	// Host names the machine that the file is from if router_id cannot.
	Host string
	// AddressesOf returns the addresses of an interface of that machine; nil: unknown.
	AddressesOf func(iface string) []netip.Addr
	ConfigID    string // keepalived's --config-id (-i), for lines that begin with @
}

const (
	maxNodes  = 64
	maxVIPs   = 256
	slowest   = time.Second // the default lease
	minLease  = 40 * time.Millisecond
	minBeat   = 10 * time.Millisecond
	perLease  = 5 // heartbeats in a lease, as in the defaults
	perAdvert = 3 // adverts that keepalived waits for (RFC 5798, Master_Down_Interval)
	// With shorter adverts than this the lease is shortened too; perAdvert of these are
	// the default lease.
	slowAdvert = slowest / perAdvert
)

// Import returns the sipalive.toml that comes closest to a keepalived.conf. Settings
// without an equivalent are listed in comments at its head, each with the reason.
func Import(text string, o Options) (string, error) {
	if len(text) > maxText {
		return "", fmt.Errorf("the file is larger than %d bytes; this is no keepalived.conf", maxText)
	}
	tokens, err := lex(text)
	if err != nil {
		return "", err
	}
	p := parser{tokens: tokens, config: o.ConfigID, vars: map[string]string{}}
	all, err := p.statements(0)
	if err != nil {
		return "", err
	}
	s := &site{notes: p.skipped}
	s.read(all)
	c, err := s.cluster(o)
	if err != nil {
		return "", err
	}
	return c.text(o, s.notes), nil
}

// cluster is the result before it becomes text.
type cluster struct {
	nodes    []Node
	vips     []*vip
	checks   []*check
	lease    time.Duration // 0: the default
	failback bool
	after    time.Duration // 0: the default
	refresh  time.Duration // 0: the default
	mail     []string
	from     string
	server   string
}

type vip struct {
	name, iface string
	address     netip.Addr
	prefer      string
	actions     []action
}

type action struct {
	on   string
	exec []string
	user string
}

type check struct {
	name              string
	exec              []string
	interval, timeout time.Duration
	fall              int
}

var errNoAddress = errors.New("no vrrp_instance has an address that sipalive could hold; nothing to import")

func (s *site) cluster(o Options) (*cluster, error) {
	c := &cluster{}
	switch addressed := func(in *instance) bool { return len(in.addresses) > 0 }; {
	case len(s.instances) == 0:
		return nil, errors.New("the file has no vrrp_instance; nothing to import (" + balancing + ")")
	case !slices.ContainsFunc(s.instances, addressed):
		return nil, errNoAddress
	}
	own, err := s.nodes(c, o)
	if err != nil {
		return nil, err
	}
	first := map[string]*vip{} // by name of the instance
	for _, in := range s.instances {
		first[in.name] = s.vips(c, in, own)
	}
	if len(c.vips) == 0 {
		return nil, errNoAddress
	}
	s.actions(first)
	s.checks(c)
	s.timing(c)
	s.people(c)
	slices.SortStableFunc(s.notes, func(a, b note) int { return a.lines[0] - b.lines[0] })
	return c, nil
}
