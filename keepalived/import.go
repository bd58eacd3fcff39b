package keepalived

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Node is a machine of the cluster.
type Node struct {
	Name    string
	Address netip.Addr
}

// Options is what a keepalived.conf does not say.
type Options struct {
	File    string // for the heading alone
	Cluster string // "": pbx
	KeyFile string // "": /etc/sipalive/key
	// Nodes are all of them, where the file's peers are not; the first one is
	// the machine that the file is from, unless its unicast_src_ip is another's.
	Nodes []Node
	// Host names the machine that the file is from, should router_id not do.
	Host string
	// AddressesOf are those of an interface there; nil knows none.
	AddressesOf func(iface string) []netip.Addr
	ConfigID    string // keepalived's --config-id, for lines that begin with @
}

const (
	maxNodes  = 64
	maxVIPs   = 256
	slowest   = time.Second // the default lease
	minLease  = 40 * time.Millisecond
	minBeat   = 10 * time.Millisecond
	perLease  = 5 // heartbeats in a lease, as by default
	perAdvert = 3 // adverts that keepalived waits for (RFC 5798, Master_Down_Interval)
	// Three of them are the default lease; below, the lease is made as short.
	slowAdvert = slowest / perAdvert
)

// Import returns the sipalive.toml that comes nearest to a keepalived.conf. What
// has no equivalent stands in comments at its head, with the reason.
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

// cluster is the result, before it is text.
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

func (s *site) cluster(o Options) (*cluster, error) {
	c := &cluster{}
	own, err := s.nodes(c, o)
	if err != nil {
		return nil, err
	}
	first := map[string]*vip{} // of each instance
	for _, in := range s.instances {
		first[in.name] = s.vips(c, in, own)
	}
	if len(c.vips) == 0 {
		return nil, errors.New("no vrrp_instance has an address that sipalive could hold; nothing to import")
	}
	s.actions(first)
	s.checks(c)
	s.timing(c)
	s.people(c)
	slices.SortStableFunc(s.notes, func(a, b note) int { return a.lines[0] - b.lines[0] })
	return c, nil
}

// nodes finds the machines, and which one the file is from.
func (s *site) nodes(c *cluster, o Options) (own Node, err error) {
	address := s.ownAddress(o)
	if len(o.Nodes) > 0 {
		c.nodes = o.Nodes
		own = o.Nodes[0]
		for _, n := range o.Nodes {
			if n.Address == address {
				own = n
			}
		}
		return own, nil
	}
	if !address.IsValid() {
		return own, errors.New("no unicast_src_ip, and no interface of it has an address here, so no node is known; give each one with --node NAME=ADDRESS, the one that the file is from first")
	}
	own = Node{"node1", address}
	for _, name := range []string{s.routerID, o.Host} {
		if name = clean(name); name != "" {
			own.Name = name
			break
		}
	}
	c.nodes = []Node{own}
	for _, in := range s.instances {
		for _, peer := range in.peers {
			s.peer(c, in.line, peer)
		}
	}
	return own, nil
}

func (s *site) peer(c *cluster, line int, peer netip.Addr) {
	known := slices.ContainsFunc(c.nodes, func(n Node) bool { return n.Address == peer })
	switch {
	case known:
	case !usable(peer):
		s.note(line, "unicast_peer "+peer.String(), "no address that a node can have")
	case peer.Is4() != c.nodes[0].Address.Is4():
		s.note(line, "unicast_peer "+peer.String(), "all nodes need an address of one family; their VIPs may be of the other")
	case len(c.nodes) == maxNodes:
		s.note(line, "unicast_peer "+peer.String(), "a cluster has at most 64 nodes")
	default:
		used := func(name string) bool {
			return slices.ContainsFunc(c.nodes, func(n Node) bool { return n.Name == name })
		}
		n := len(c.nodes) + 1
		for used(fmt.Sprintf("node%d", n)) {
			n++
		}
		c.nodes = append(c.nodes, Node{fmt.Sprintf("node%d", n), peer})
	}
}

func (s *site) ownAddress(o Options) netip.Addr {
	for _, in := range s.instances {
		if usable(in.own) {
			return in.own
		}
	}
	for _, in := range s.instances {
		if o.AddressesOf == nil || in.iface == "" {
			continue
		}
		for _, a := range o.AddressesOf(in.iface) {
			if usable(a) && !s.isVirtual(a) { // keepalived may run there, and hold one
				return a
			}
		}
	}
	return netip.Addr{}
}

func (s *site) isVirtual(a netip.Addr) bool {
	return slices.ContainsFunc(s.instances, func(in *instance) bool {
		return slices.ContainsFunc(in.addresses, func(v address) bool { return v.ip == a })
	})
}

// usable is an address that one machine can have and every other can ask.
func usable(a netip.Addr) bool {
	switch {
	case !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.Is4In6():
		return false
	case a.Is4():
		return a.As4()[0] != 0 && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
	default:
		return !a.IsLinkLocalUnicast()
	}
}

// vips makes one VIP of each address of an instance, and returns the first.
func (s *site) vips(c *cluster, in *instance, own Node) (first *vip) {
	before := len(c.vips)
	for _, a := range in.addresses {
		v := &vip{address: a.ip, iface: in.iface, prefer: s.preferred(c, in, own)}
		if a.iface != "" {
			v.iface = a.iface
		}
		if why := c.refuse(v); why != "" {
			s.note(a.line, a.ip.String(), why)
			continue
		}
		if v.iface != "" && !isInterface(v.iface) {
			s.note(a.line, "interface "+v.iface, "no interface can be called that")
			v.iface = ""
		}
		v.name = unused(in.name, "vip", func(name string) bool {
			return name == "node" || slices.ContainsFunc(c.vips, func(v *vip) bool { return v.name == name })
		})
		c.vips = append(c.vips, v)
	}
	switch made := c.vips[before:]; len(made) {
	case 0:
		return nil
	case 1:
		return made[0]
	default:
		s.note(in.line, in.name+" has several addresses", "each is a VIP of its own here; their prefer is the same, but nothing ties them, and scripts run for the first")
		return made[0]
	}
}

// refuse says why an address cannot be a VIP, or "".
func (c *cluster) refuse(v *vip) string {
	switch {
	case v.address.Is6() && v.address.IsLinkLocalUnicast():
		return "VRRP wants a link-local address, sipalive does not: it is no phone's"
	case !usable(v.address) || v.address.IsLoopback():
		return "no address that a phone could reach"
	case slices.ContainsFunc(c.vips, func(o *vip) bool { return o.address == v.address }):
		return "the address is a VIP already"
	case slices.ContainsFunc(c.nodes, func(n Node) bool { return n.Address == v.address }):
		return "the address is a node's own, and no VIP: phones that use it need another"
	case len(c.vips) == maxVIPs:
		return "a cluster has at most 256 VIPs"
	}
	return ""
}

// preferred is this node where the file makes it MASTER, and where there are two,
// the other one else.
func (s *site) preferred(c *cluster, in *instance, own Node) string {
	switch {
	case in.master:
		return own.Name
	case len(c.nodes) == 2:
		for _, n := range c.nodes {
			if n.Name != own.Name {
				return n.Name
			}
		}
	case len(c.nodes) > 2:
		s.note(in.line, "state BACKUP of "+in.name, "the MASTER's file says which node is preferred: set prefer")
	}
	return ""
}

func (s *site) timing(c *cluster) {
	manual := false
	for _, in := range s.instances {
		if in.advert > 0 && in.advert < slowAdvert {
			if lease := max(minLease, perAdvert*in.advert); c.lease == 0 || lease < c.lease {
				c.lease = lease
			}
		}
		c.failback = c.failback || in.preempts
		manual = manual || !in.preempts
		c.after = max(c.after, in.preemptDelay)
	}
	if c.failback && manual {
		for _, in := range s.instances {
			if !in.preempts {
				s.note(in.line, "nopreempt of "+in.name, "failback is one setting for all VIPs, and other instances preempt")
			}
		}
	}
	if s.refresh > 0 {
		c.refresh = min(max(s.refresh, time.Second), time.Hour)
	}
}

// people are who gets mail.
func (s *site) people(c *cluster) {
	if len(s.mail) == 0 {
		return
	}
	if !s.smtpAlert {
		s.note(0, "notification_email", "no smtp_alert for a vrrp_instance: nobody was told; add a [[notify]] to tell them")
		return
	}
	for _, to := range s.mail {
		if to = mailbox(to); to == "" {
			s.note(0, "a notification_email", "not an address")
		} else if !slices.Contains(c.mail, to) {
			c.mail = append(c.mail, to)
		}
	}
	c.from = mailbox(s.mailFrom)
	if isEndpoint(s.mailServer) {
		c.server = s.mailServer
	} else if s.mailServer != "" {
		s.note(0, "smtp_server "+s.mailServer, "no host and port")
	}
}

// mailbox is an address with a domain, "" where it cannot be made one.
func mailbox(to string) string {
	if to != "" && !strings.Contains(to, "@") {
		to += "@localhost"
	}
	local, domain, _ := strings.Cut(to, "@")
	odd := func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("<>()[],;:\\\"@", r) }
	if local == "" || domain == "" || len(to) > 254 || strings.ContainsFunc(local, odd) || strings.ContainsFunc(domain, odd) {
		return ""
	}
	return to
}
