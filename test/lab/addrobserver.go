package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AddressObserver watches the addresses of every host. It reads the events of all
// namespaces from one netlink socket (NETLINK_LISTEN_ALL_NSID, Linux 4.2). So the order
// of its events is the kernel's order across hosts, however late they are read. Whether
// two hosts had one address at once is judged by this order, not by times.
type AddressObserver struct {
	file *os.File
	raw  syscall.RawConn
	done chan struct{}
	once sync.Once

	mu     sync.Mutex
	hosts  map[int32]*Host // by the id of the host's namespace as seen from the switch
	events []AddressEvent
	bound  map[boundKey]bool
	err    error
}

type boundKey struct {
	host  *Host
	index uint32
	addr  netip.Addr
}

// AddressEvent says that an address appeared or went. A renewed lifetime is no event. The
// first events are the addresses that were there at the start.
type AddressEvent struct {
	At    time.Duration // when it was read: late by the delays of a busy machine
	Host  string
	Index int // of the interface
	Addr  netip.Addr
	Bound bool
}

// BoundInterval is a period in which a host had an address.
type BoundInterval struct {
	Host     string
	From, To time.Duration // To is 0 while it lasts
}

// Overlap is a period in which two or more hosts had the same address.
type Overlap struct {
	Addr     netip.Addr
	Hosts    []string
	From, To time.Duration // To is 0 while it lasts
}

// ObserveAddresses starts watching the addresses of every host.
func (l *Lab) ObserveAddresses() (*AddressObserver, error) {
	o := &AddressObserver{done: make(chan struct{}), hosts: map[int32]*Host{}, bound: map[boundKey]bool{}}
	err := l.bridge.do(func() error {
		for _, h := range l.Hosts() {
			id, err := namespaceNumber(h.ns)
			if err != nil {
				return err
			}
			o.hosts[id] = h
		}
		return o.open()
	})
	if err != nil {
		return nil, fmt.Errorf("observe addresses: %w", err)
	}
	// List the addresses after subscribing: an address that appears in between comes
	// twice, and note counts it once.
	for _, h := range l.Hosts() {
		addrs, err := h.ns.route.AddrList(nil, unix.AF_UNSPEC)
		if err != nil {
			o.file.Close()
			return nil, fmt.Errorf("observe addresses: list those of %s: %w", h.Name, err)
		}
		for _, a := range addrs {
			addr, _ := netip.AddrFromSlice(a.IP)
			o.note(boundKey{h, uint32(a.LinkIndex), addr.Unmap()}, true)
		}
	}
	if err := l.register(o); err != nil {
		o.file.Close()
		return nil, err
	}
	go o.run()
	return o, nil
}

// namespaceNumber returns the id that the calling thread's namespace has for ns. It
// assigns one if there is none yet.
func namespaceNumber(ns *namespace) (int32, error) {
	id, err := netlink.GetNetNsIdByFd(int(ns.fd))
	if err == nil && id < 0 {
		if err = netlink.SetNetNsIdByFd(int(ns.fd), -1); err == nil {
			id, err = netlink.GetNetNsIdByFd(int(ns.fd))
		}
	}
	if err != nil || id < 0 {
		return 0, fmt.Errorf("number namespace %s: id %d: %w", ns.name, id, err)
	}
	return int32(id), nil
}

func (o *AddressObserver) open() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	o.file = os.NewFile(uintptr(fd), "netlink")
	o.raw, err = o.file.SyscallConn()
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR})
	}
	if err != nil {
		o.file.Close()
	}
	return err
}

// Stop ends the observation after it has read the queued events. Stopping twice is no
// error.
func (o *AddressObserver) Stop() {
	o.once.Do(func() {
		o.drain()
		o.file.Close()
	})
	<-o.done
}

func (o *AddressObserver) run() {
	defer close(o.done)
	for {
		err := o.raw.Read(func(fd uintptr) bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.read(int(fd)) > 0
		})
		if err != nil {
			return // closed
		}
	}
}

// drain reads the events that the kernel has queued. So a caller who has just seen a
// change elsewhere finds it here.
func (o *AddressObserver) drain() {
	_ = o.raw.Control(func(fd uintptr) { // fails only on a closed file, which has nothing more
		o.mu.Lock()
		defer o.mu.Unlock()
		o.read(int(fd))
	})
}

// read takes all queued messages and returns how many they were. The caller holds the
// lock.
func (o *AddressObserver) read(fd int) int {
	var buffer [32768]byte
	var control [64]byte
	for count := 0; ; count++ {
		n, cn, _, _, err := unix.Recvmsg(fd, buffer[:], control[:], 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return count
		case err != nil:
			o.err = fmt.Errorf("read address events: %w (the picture has a hole)", err)
			if errors.Is(err, unix.ENOBUFS) {
				continue
			}
			return count
		}
		o.parse(buffer[:n], control[:cn])
	}
}

func (o *AddressObserver) parse(b, control []byte) {
	host := o.hosts[namespaceOf(control)]
	messages, err := syscall.ParseNetlinkMessage(b)
	if host == nil || err != nil {
		return // the switch's own namespace, or one of another lab
	}
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWADDR && m.Header.Type != unix.RTM_DELADDR || len(m.Data) < unix.SizeofIfAddrmsg {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			continue
		}
		var addr netip.Addr
		for _, a := range attrs {
			// Where both attributes are present, IFA_LOCAL is the address itself.
			if a.Attr.Type == unix.IFA_LOCAL || a.Attr.Type == unix.IFA_ADDRESS && !addr.IsValid() {
				addr, _ = netip.AddrFromSlice(a.Value)
			}
		}
		index := binary.NativeEndian.Uint32(m.Data[4:])
		o.note(boundKey{host, index, addr}, m.Header.Type == unix.RTM_NEWADDR)
	}
}

// namespaceOf returns the id of the namespace that an event comes from, -1 if there is
// none.
func namespaceOf(control []byte) int32 {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return -1
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_NETLINK && m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4 {
			return int32(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return -1
}

// note records a change. It ignores an event that changes nothing.
func (o *AddressObserver) note(key boundKey, bound bool) {
	if o.bound[key] == bound {
		return
	}
	if bound {
		o.bound[key] = true
	} else {
		delete(o.bound, key)
	}
	o.events = append(o.events, AddressEvent{Now(), key.host.Name, int(key.index), key.addr, bound})
}

// Events returns all events so far, in the kernel's order. The error says that events
// were lost.
func (o *AddressObserver) Events() ([]AddressEvent, error) {
	o.drain()
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.events), o.err
}

// Intervals returns the periods in which hosts had this address.
func (o *AddressObserver) Intervals(addr netip.Addr) ([]BoundInterval, error) {
	events, err := o.Events()
	var list []BoundInterval
	for _, e := range events {
		switch {
		case e.Addr != addr:
		case e.Bound:
			list = append(list, BoundInterval{Host: e.Host, From: e.At})
		default:
			for i := range list {
				if list[i].Host == e.Host && list[i].To == 0 {
					list[i].To = e.At
					break
				}
			}
		}
	}
	return list, err
}

// Overlaps returns the periods in which two or more hosts had one of these addresses at
// once.
func (o *AddressObserver) Overlaps(addrs ...netip.Addr) ([]Overlap, error) {
	events, err := o.Events()
	var list []Overlap
	for _, addr := range addrs {
		list = append(list, overlapsOf(addr, events)...)
	}
	return list, err
}

func overlapsOf(addr netip.Addr, events []AddressEvent) []Overlap {
	var list []Overlap
	count := map[string]int{} // by host: how many of its interfaces have the address
	open := false
	for _, e := range events {
		if e.Addr != addr {
			continue
		}
		if e.Bound {
			count[e.Host]++
		} else if count[e.Host]--; count[e.Host] == 0 {
			delete(count, e.Host)
		}
		var hosts []string
		for h := range count {
			hosts = append(hosts, h)
		}
		slices.Sort(hosts)
		switch {
		case len(hosts) > 1 && !open:
			list = append(list, Overlap{Addr: addr, Hosts: hosts, From: e.At})
			open = true
		case len(hosts) < 2 && open:
			list[len(list)-1].To = e.At
			open = false
		}
	}
	return list
}
