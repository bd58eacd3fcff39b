// Package nstest gives a test its own network namespaces. They have no names, so the
// kernel removes them with the test, however it ends.
package nstest

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// A Namespace is one network namespace with its loopback up.
type Namespace struct {
	t      testing.TB
	handle netns.NsHandle
	// Netlink configures the namespace from any thread.
	Netlink *netlink.Handle
}

// Enter moves the calling test into a new namespace and keeps it there. The goroutine's
// thread is never given back, so that nothing else runs in it. Goroutines and subtests
// that the test starts run outside; sockets that the test opens stay inside.
func Enter(t testing.TB) *Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes a network namespace")
	}
	runtime.LockOSThread()
	return create(t)
}

// Beside makes another namespace. The test stays in this one.
func (n *Namespace) Beside() *Namespace {
	n.t.Helper()
	other := create(n.t)
	n.check("return to the namespace", netns.Set(n.handle))
	return other
}

func create(t testing.TB) *Namespace {
	t.Helper()
	n := &Namespace{t: t}
	var err error
	n.handle, err = netns.New()
	n.check("make a namespace", err)
	n.Netlink, err = netlink.NewHandle()
	n.check("open netlink", err)
	t.Cleanup(func() {
		n.Netlink.Close()
		n.handle.Close()
	})
	n.Up("lo")
	return n
}

func (n *Namespace) check(what string, err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("%s: %v", what, err)
	}
}

// Do runs f in the namespace and then returns to the test's previous one.
func (n *Namespace) Do(f func()) {
	n.t.Helper()
	back, err := netns.Get()
	n.check("read the namespace", err)
	defer back.Close()
	n.check("enter the namespace", netns.Set(n.handle))
	defer func() { n.check("leave the namespace", netns.Set(back)) }()
	f()
}

// Wire connects name in n with peerName in peer by a veth pair. Both ends are up and
// ready to send: the kernel enables a queue some time after the carrier is there, and
// until then drops frames without an error.
func (n *Namespace) Wire(name string, peer *Namespace, peerName string) {
	n.t.Helper()
	n.check("make a veth pair", n.Netlink.LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: name},
		PeerName:      peerName,
		PeerNamespace: netlink.NsFd(peer.handle),
	}))
	n.Up(name)
	peer.Up(peerName)
	n.Ready(name)
	peer.Ready(peerName)
}

// Ready waits until name can send.
func (n *Namespace) Ready(name string) {
	n.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for n.Link(name).Attrs().OperState != netlink.OperUp {
		if time.Now().After(deadline) {
			n.t.Fatalf("%s is still %s", name, n.Link(name).Attrs().OperState)
		}
		time.Sleep(time.Millisecond)
	}
}

// Link returns the interface in its current state.
func (n *Namespace) Link(name string) netlink.Link {
	n.t.Helper()
	link, err := n.Netlink.LinkByName(name)
	n.check("find "+name, err)
	return link
}

// Up does ip link set name up.
func (n *Namespace) Up(name string) {
	n.t.Helper()
	n.check("set "+name+" up", n.Netlink.LinkSetUp(n.Link(name)))
}

// Down does ip link set name down.
func (n *Namespace) Down(name string) {
	n.t.Helper()
	n.check("set "+name+" down", n.Netlink.LinkSetDown(n.Link(name)))
}

// Remove does ip link delete name.
func (n *Namespace) Remove(name string) {
	n.t.Helper()
	n.check("remove "+name, n.Netlink.LinkDel(n.Link(name)))
}

// Bridge makes a switch in n that forwards at once.
func (n *Namespace) Bridge(name string) netlink.Link {
	n.t.Helper()
	noSnooping := false
	n.check("make a bridge", n.Netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}, MulticastSnooping: &noSnooping}))
	n.Up(name)
	return n.Link(name)
}

// Master plugs name into a bridge.
func (n *Namespace) Master(name string, bridge netlink.Link) {
	n.t.Helper()
	n.check("plug "+name+" in", n.Netlink.LinkSetMaster(n.Link(name), bridge))
}

// SetMAC does ip link set name address mac.
func (n *Namespace) SetMAC(name string, mac net.HardwareAddr) {
	n.t.Helper()
	n.check("set the MAC of "+name, n.Netlink.LinkSetHardwareAddr(n.Link(name), mac))
}

// Sysctl writes a setting below /proc/sys.
func (n *Namespace) Sysctl(key, value string) {
	n.t.Helper()
	n.Do(func() { n.check("set "+key, os.WriteFile("/proc/sys/"+key, []byte(value), 0)) })
}

// DefaultRoute does ip route add default via gateway dev name.
func (n *Namespace) DefaultRoute(name string, gateway netip.Addr) {
	n.t.Helper()
	n.check("add a default route", n.Netlink.RouteAdd(&netlink.Route{LinkIndex: n.Link(name).Attrs().Index, Gw: gateway.AsSlice()}))
}

// MAC returns the hardware address of name.
func (n *Namespace) MAC(name string) net.HardwareAddr {
	n.t.Helper()
	return n.Link(name).Attrs().HardwareAddr
}

// Add does ip address add cidr dev name.
func (n *Namespace) Add(name, cidr string) {
	n.t.Helper()
	n.check("add "+cidr, n.Netlink.AddrAdd(n.Link(name), n.address(cidr)))
}

// Delete does ip address delete cidr dev name.
func (n *Namespace) Delete(name, cidr string) {
	n.t.Helper()
	n.check("delete "+cidr, n.Netlink.AddrDel(n.Link(name), n.address(cidr)))
}

func (n *Namespace) address(cidr string) *netlink.Addr {
	n.t.Helper()
	a, err := netlink.ParseAddr(cidr)
	n.check("parse "+cidr, err)
	return a
}

// Addresses returns the IPv4 addresses of all interfaces as "name cidr", in the kernel's
// order.
func (n *Namespace) Addresses() []string {
	n.t.Helper()
	all, err := n.Netlink.AddrList(nil, netlink.FAMILY_V4)
	n.check("list addresses", err)
	var found []string
	for _, a := range all {
		link, err := n.Netlink.LinkByIndex(a.LinkIndex)
		n.check("find an interface", err)
		found = append(found, link.Attrs().Name+" "+a.IPNet.String())
	}
	return found
}
