package lab

import (
	"fmt"
	"net"
	"net/netip"
)

// Host is a node, the router or the phone.
type Host struct {
	Name      string
	Addr      netip.Addr       // its static address: the router's is the one on the switch
	Addr6     netip.Addr       // the same of IPv6; invalid in a lab without
	Addr2     netip.Addr       // a node's on the management switch; invalid without one
	MAC       net.HardwareAddr // of eth0
	Namespace string           // path under /run/netns

	lab *Lab
	ns  *namespace
}

// Do runs fn inside the host's namespace, on a thread that ends with it.
// Sockets opened inside stay in the namespace. Goroutines that fn starts run
// outside it. Do not call t.Fatal inside: return the error.
func (h *Host) Do(fn func() error) error { return h.ns.do(fn) }

// Bind adds an address to eth0, an IPv4 one as /32 and an IPv6 one as /128: an
// administrator's hand, or a second holder planted by a test. It announces
// nothing.
func (h *Host) Bind(addr netip.Addr) error {
	return h.configure(nic, netip.PrefixFrom(addr, addr.BitLen()))
}

// Unbind removes what Bind (or an agent) added.
func (h *Host) Unbind(addr netip.Addr) error {
	if err := h.change(nic, netip.PrefixFrom(addr, addr.BitLen()), h.ns.route.AddrDel); err != nil {
		return fmt.Errorf("unbind %v from %s of %s: %w", addr, nic, h.Name, err)
	}
	return nil
}
