package lab

import (
	"fmt"
	"net"
	"net/netip"
)

// Host is a node, the router or the phone.
type Host struct {
	Name      string
	Addr      netip.Addr       // its static IPv4 address; for the router, the one on the switch
	Addr6     netip.Addr       // its static IPv6 address; invalid in a lab without IPv6
	Addr2     netip.Addr       // a node's address on the management switch; invalid without one
	MAC       net.HardwareAddr // of eth0
	Namespace string           // path under /run/netns

	lab *Lab
	ns  *namespace
}

// Do runs fn inside the host's namespace, on a thread that ends with fn. Sockets opened
// by fn stay in the namespace. Goroutines started by fn run outside it. Do not call
// t.Fatal inside fn: return the error.
func (h *Host) Do(fn func() error) error { return h.ns.do(fn) }

// Bind adds an address to eth0, IPv4 as /32 and IPv6 as /128, and announces nothing. It
// stands for an administrator who adds an address by hand, or for a second holder planted
// by a test.
func (h *Host) Bind(addr netip.Addr) error {
	return h.configure(nic, netip.PrefixFrom(addr, addr.BitLen()))
}

// Unbind removes an address that Bind or an agent added.
func (h *Host) Unbind(addr netip.Addr) error {
	if err := h.change(nic, netip.PrefixFrom(addr, addr.BitLen()), h.ns.route.AddrDel); err != nil {
		return fmt.Errorf("unbind %v from %s of %s: %w", addr, nic, h.Name, err)
	}
	return nil
}
