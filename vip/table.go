// Package vip makes the kernel agree which VIPs are bound on this host and which are not.
package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sipalive/platform"
)

// An Address is a VIP and the interface it belongs on.
type Address struct {
	IP        netip.Addr
	Interface string
}

// Bound is one copy of a VIP that the kernel has at this moment.
type Bound struct {
	Address           // where the copy is, not where the VIP belongs
	Index         int // of the interface
	PrefixLength  int
	Ours          bool // carries our IFA_PROTO tag; never set by kernels before 5.18
	AsBoundByBind bool // on its configured interface and as Bind or BindFor makes it
}

// kernelTimeout bounds the wait for an answer. The kernel answers within the system call;
// only a lost answer (ENOBUFS) needs a wait.
const kernelTimeout = time.Second

// A Table is the part of the kernel's address table that concerns the VIPs it manages. It
// owns one netlink socket in the network namespace it was opened in. It is not safe for
// concurrent use: one goroutine calls it.
type Table struct {
	socket  *nl.NetlinkSocket
	sockets map[int]*nl.SocketHandle
	managed map[netip.Addr]string // VIP to the interface it belongs on
	family  int                   // family to list: AF_INET, or AF_UNSPEC for both

	// execute performs one request; tests replace it to imitate older kernels.
	execute func(request *nl.NetlinkRequest, answer uint16) ([][]byte, error)
	// untagged means that this kernel does not keep IFA_PROTO (before 5.18).
	untagged bool
}

// Open opens the table for the VIPs in managed. It binds and removes nothing.
func Open(managed []Address) (*Table, error) {
	t := &Table{}
	if err := t.Manage(managed); err != nil {
		return nil, err
	}
	var err error
	if t.socket, err = nl.Subscribe(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	timeout := unix.NsecToTimeval(kernelTimeout.Nanoseconds())
	// Neither call can fail: both only store the time.
	_ = t.socket.SetSendTimeout(&timeout)
	_ = t.socket.SetReceiveTimeout(&timeout)
	t.sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: t.socket}}
	t.execute = func(request *nl.NetlinkRequest, answer uint16) ([][]byte, error) {
		return request.Execute(unix.NETLINK_ROUTE, answer)
	}
	return t, nil
}

// Close closes the netlink socket. What is bound stays bound.
func (t *Table) Close() { t.socket.Close() }

// Manage replaces the list of VIPs after a reload. A VIP that leaves the list stays as it
// is: Unbind it first.
func (t *Table) Manage(managed []Address) error {
	t.family = unix.AF_INET
	vips := make(map[netip.Addr]string, len(managed))
	for _, a := range managed {
		if !a.IP.IsValid() || a.IP.Zone() != "" || a.IP.Is4In6() {
			return fmt.Errorf("manage %s: not a plain address", a.IP)
		}
		if a.IP.Is6() {
			t.family = unix.AF_UNSPEC
		}
		if _, twice := vips[a.IP]; twice {
			return fmt.Errorf("manage %s: configured twice", a.IP)
		}
		vips[a.IP] = a.Interface
	}
	t.managed = vips
	return nil
}

// Bound lists every copy of a managed VIP on any interface, as it is now.
func (t *Table) Bound() ([]Bound, error) {
	all, err := t.list()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var bound []Bound
	for _, e := range all {
		if _, ok := t.managed[e.local]; ok {
			bound = append(bound, t.describe(e))
		}
	}
	return bound, nil
}

func (t *Table) describe(e entry) Bound {
	// An interface that is gone by now took the address with it: the name is then empty.
	name, _ := platform.InterfaceName(t.socket.GetFd(), e.index)
	return Bound{
		Address:       Address{IP: e.local, Interface: name},
		Index:         e.index,
		PrefixLength:  e.prefix,
		Ours:          e.tag == Tag,
		AsBoundByBind: name == t.managed[e.local] && e.isHost() && t.shaped(e),
	}
}

func (t *Table) check(a Address) error {
	if _, ok := t.managed[a.IP]; !ok {
		return errors.New("not a configured VIP (see ip addresses in the configuration)")
	}
	return nil
}

// explain adds a hint to the errno of a request.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (needs CAP_NET_ADMIN)", err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w (is it the interface's name? see ip link)", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w (IPv6 is off there: sysctl net.ipv6.conf.INTERFACE.disable_ipv6=0)", err)
	}
	return err
}
