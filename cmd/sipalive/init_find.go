package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sipalive/platform"
	"sipalive/sipcheck"
)

// machine is what init finds on the machine where it runs.
type machine struct {
	addresses []onInterface
	gateway   netip.Addr // the zero Addr: none found
	program   string     // a PBX that is running; "": none found
	target    string     // where the PBX answers OPTIONS, such as udp:5060; "": nowhere
	memcached string     // host:port that means the same on every node; "": none
	cacheHere string     // host:port of a memcached that listens on this node's own address only; "": none
}

type onInterface struct {
	iface  string
	prefix netip.Prefix
}

// pbxPrograms are the PBX programs that init looks for, by process name.
var pbxPrograms = []string{"freeswitch", "kamailio", "asterisk", "opensips"}

const (
	firstRTPPort   = 10000 // Asterisk's first; FreeSWITCH's begin at 16384
	maxCandidates  = 8
	answerPatience = 500 * time.Millisecond
)

// findNetwork lists the addresses a node can have. The addresses of the first interface
// with a default route come first.
func findNetwork() (m machine, err error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return m, fmt.Errorf("list interfaces: %w", err)
	}
	routes, err := platform.OpenRoutes()
	if err != nil {
		return m, err
	}
	defer routes.Close()
	main := ""
	for _, i := range interfaces {
		all, _ := i.Addrs() // the interface may be gone by now
		for _, a := range all {
			p, err := netip.ParsePrefix(a.String())
			if err != nil || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() || i.Flags&net.FlagUp == 0 {
				continue
			}
			m.addresses = append(m.addresses, onInterface{i.Name, p})
			if hop, err := routes.NextHop(i.Name, p.Addr().Is6()); err == nil && hop.IsValid() && main == "" {
				main, m.gateway = i.Name, hop
			}
		}
	}
	slices.SortStableFunc(m.addresses, func(a, b onInterface) int { return last(a.iface != main, b.iface != main) })
	return m, nil
}

// last compares two elements by whether they come last.
func last(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

func (m machine) has(a netip.Addr) bool {
	return slices.ContainsFunc(m.addresses, func(o onInterface) bool { return o.prefix.Addr() == a })
}

func (m machine) reaches(a netip.Addr) bool {
	return slices.ContainsFunc(m.addresses, func(o onInterface) bool { return o.prefix.Contains(a) })
}

// findServices looks for a PBX and for where it answers at the node's address, and for
// memcached.
func (m *machine) findServices(ctx context.Context, own netip.Addr) error {
	all, err := platform.Listeners(append([]string{"memcached"}, pbxPrograms...)...)
	if err != nil {
		return err
	}
	var sip []platform.Listener
	for _, l := range all {
		switch {
		case l.Program == "memcached":
			if l.Network == "tcp" {
				m.cache(l.Local, own)
			}
		case m.program == "" || m.program == l.Program:
			m.program = l.Program
			if l.Local.Addr().IsUnspecified() || l.Local.Addr() == own {
				sip = append(sip, l)
			}
		}
	}
	m.target = answering(ctx, own, sip)
	return nil
}

// cache takes a listener of memcached, and prefers 127.0.0.1 to ::1. The file is the same
// on every node, so a node's own address is of no use to the others.
func (m *machine) cache(at netip.AddrPort, own netip.Addr) {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	switch a := at.Addr(); {
	case a.IsUnspecified() || a == loopback:
		m.memcached = netip.AddrPortFrom(loopback, at.Port()).String()
	case a == netip.IPv6Loopback() && m.memcached == "":
		m.memcached = at.String()
	case a == own:
		m.cacheHere = at.String()
	}
}

// answering returns the first listener that answers OPTIONS. UDP comes before TCP, and
// 5060 before other ports.
func answering(ctx context.Context, own netip.Addr, sip []platform.Listener) string {
	slices.SortStableFunc(sip, func(a, b platform.Listener) int {
		x, y := a.Local.Port(), b.Local.Port()
		return cmp.Or(last(a.Network != "udp", b.Network != "udp"), last(x != 5060, y != 5060), cmp.Compare(x, y))
	})
	sip = slices.DeleteFunc(sip, func(l platform.Listener) bool { return l.Local.Port() >= firstRTPPort })
	for _, l := range sip[:min(len(sip), maxCandidates)] {
		to := netip.AddrPortFrom(own, l.Local.Port())
		over, known := sipcheck.ParseTransport(l.Network)
		if !known {
			continue
		}
		if _, err := sipcheck.Ping(ctx, to, sipcheck.PingOptions{Transport: over, Timeout: answerPatience}); err == nil {
			return fmt.Sprintf("%s:%d", l.Network, l.Local.Port())
		}
	}
	return ""
}

// summary describes the findings in one line.
func (m machine) summary() string {
	var found []string
	for _, a := range m.addresses {
		found = append(found, a.prefix.String()+" on "+a.iface)
	}
	if m.gateway.IsValid() {
		found = append(found, "gateway "+m.gateway.String())
	} else {
		found = append(found, "no gateway")
	}
	switch {
	case m.program == "":
		found = append(found, "no PBX that runs")
	case m.target == "":
		found = append(found, m.program+", which answers no OPTIONS on this node's address")
	default:
		found = append(found, m.program+", which answers OPTIONS on "+m.target)
	}
	if at := cmp.Or(m.memcached, m.cacheHere); at != "" {
		found = append(found, "memcached on "+at)
	}
	return "found: " + strings.Join(found, ", ")
}
