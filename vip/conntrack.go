package vip

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Numbers of linux/netfilter/nfnetlink_conntrack.h that the libraries lack.
const (
	ctaFilter          = 25 // CTA_FILTER, kernel 5.8
	ctaFilterOrigFlags = 1
)

// side is one end of a connection in its original direction.
type side struct {
	attribute4 uint16 // within CTA_TUPLE_IP
	attribute6 uint16
	filterFlag uint32 // CTA_FILTER_F_CTA_IP_...
}

var (
	source      = side{nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC, 1 << 0}
	destination = side{nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST, 1 << 1}
)

// FlushConntrack deletes the connection-tracking entries whose original source
// or original destination is ip, and tells how many. An entry that outlives the
// VIP keeps NAT and firewall verdicts for connections that live on another node
// now, and would catch them when the VIP comes back.
//
// It opens a socket of its own in the caller's network namespace, so any
// goroutine may call it: when the VIP was unbound, and when it was bound, for what
// a packet that came by chance meanwhile has left.
// It takes some 10 ms, since the kernel walks its whole hash table (measured, an
// empty one), and before kernel 5.8 about 1 µs more per connection of the host.
// A kernel without connection tracking has nothing to delete: no error.
func (t *Table) FlushConntrack(ip netip.Addr) (deleted int, err error) {
	if err := t.check(Address{IP: ip}); err != nil {
		return 0, fmt.Errorf("flush connections of %s: %w", ip, err)
	}
	deleted, err = flushConntrack(ip)
	if err != nil {
		return deleted, fmt.Errorf("flush connections of %s: %w", ip, explain(err))
	}
	return deleted, nil
}

func flushConntrack(ip netip.Addr) (deleted int, err error) {
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer socket.Close()
	timeout := unix.NsecToTimeval(kernelTimeout.Nanoseconds())
	_ = socket.SetReceiveTimeout(&timeout)
	sockets := map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: socket}}
	for _, s := range []side{source, destination} {
		n, err := flushSide(sockets, ip, s)
		deleted += n
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

func flushSide(sockets map[int]*nl.SocketHandle, ip netip.Addr, s side) (deleted int, err error) {
	list := conntrackRequest(sockets, ip, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	if ip.Is4() { // of IPv6 the kernel leaves out exactly what is asked for (measured, Linux 6.18)
		filterBy(list, ip, s)
	}
	// Matches are copied out of the stream: a busy host has 100,000 entries, and
	// a kernel that does not filter sends them all.
	var matches [][]byte
	err = list.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(m []byte) bool {
		if len(m) > nl.SizeofNfgenmsg && s.matches(m[nl.SizeofNfgenmsg:], ip) {
			matches = append(matches, bytes.Clone(m[nl.SizeofNfgenmsg:]))
		}
		return true
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, nil // netlink for netfilter is there, connection tracking is not
	}
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return 0, err
	}
	for _, entry := range matches {
		request := conntrackRequest(sockets, ip, nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
		request.AddRawData(entry) // tuple and id: this connection, no later one
		_, err := request.Execute(unix.NETLINK_NETFILTER, 0)
		switch {
		case err == nil:
			deleted++
		case !errors.Is(err, unix.ENOENT): // it may have ended by itself
			return deleted, err
		}
	}
	return deleted, nil
}

func conntrackRequest(sockets map[int]*nl.SocketHandle, ip netip.Addr, operation int, flags uint16) *nl.NetlinkRequest {
	const subsystem = 1 // NFNL_SUBSYS_CTNETLINK
	request := &nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{Type: uint16(subsystem<<8 | operation), Flags: unix.NLM_F_REQUEST | flags},
		Sockets:  sockets,
	}
	request.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(family(ip)), Version: nl.NFNETLINK_V0})
	return request
}

// filterBy has the kernel send only what matches; before 5.8 it ignores this.
func filterBy(request *nl.NetlinkRequest, ip netip.Addr, s side) {
	filter := nl.NewRtAttr(ctaFilter|unix.NLA_F_NESTED, nil)
	filter.AddRtAttr(ctaFilterOrigFlags, nl.Uint32Attr(s.filterFlag))
	tuple := nl.NewRtAttr(nl.CTA_TUPLE_ORIG|unix.NLA_F_NESTED, nil)
	tuple.AddRtAttr(nl.CTA_TUPLE_IP|unix.NLA_F_NESTED, nil).AddRtAttr(int(s.attribute(ip)), ip.AsSlice())
	request.AddData(filter)
	request.AddData(tuple)
}

func (s side) attribute(ip netip.Addr) uint16 {
	if ip.Is6() {
		return s.attribute6
	}
	return s.attribute4
}

func (s side) matches(attributes []byte, ip netip.Addr) bool {
	value := nested(attributes, nl.CTA_TUPLE_ORIG, nl.CTA_TUPLE_IP, s.attribute(ip))
	addr, ok := netip.AddrFromSlice(value)
	return ok && addr == ip
}
