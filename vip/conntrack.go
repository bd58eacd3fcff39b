package vip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Numbers of linux/netfilter/nfnetlink_conntrack.h that the libraries lack.
const (
	ctaFilter          = 25 // CTA_FILTER, kernel 5.8
	ctaFilterOrigFlags = 1
	getConntrackStats  = 5 // IPCTNL_MSG_CT_GET_STATS
	statsGlobalEntries = 1 // CTA_STATS_GLOBAL_ENTRIES
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

// If more than fewConnections connections are tracked and at most filtered VIPs are to be
// flushed, there are two walks through the table for each VIP, and the kernel filters
// those for IPv4. Otherwise there is one unfiltered walk per address family.
const (
	filtered       = 4
	fewConnections = 4096
)

// FlushConntrack deletes the connection-tracking entries whose original source or
// original destination is one of ips, and returns how many it deleted. An entry that
// outlives the VIP keeps NAT and firewall verdicts for connections that now live on
// another node, and would apply to them again when the VIP comes back.
//
// FlushConntrack opens its own socket in the caller's network namespace, so any goroutine
// may call it. Call it after unbinding the VIP, and after binding it, because a packet
// that came by chance meanwhile may have left an entry.
//
// If nothing is tracked, it takes 10 µs. Otherwise the kernel walks its whole hash table
// and lets nothing else run on that core meanwhile. A walk takes some 5 ms for the
// 262,144 buckets of a host with more than 4 GB. If more than 4096 connections are
// tracked, each of up to four VIPs needs two walks; in all other cases there is one walk
// per address family. Connections that the kernel does not filter (before 5.8: all) take
// 1 µs more each. (Walks for each of 128 VIPs taken together kept a core busy for a
// second, and the last VIP had to wait for that.)
//
// A kernel without connection tracking has nothing to delete: no error.
func (t *Table) FlushConntrack(ips ...netip.Addr) (deleted int, err error) {
	for _, ip := range ips {
		if err := t.check(Address{IP: ip}); err != nil {
			return 0, fmt.Errorf("flush connections of %s: %w", ip, err)
		}
	}
	if len(ips) == 0 {
		return 0, nil
	}
	deleted, err = flushConntrack(ips)
	if err != nil {
		return deleted, fmt.Errorf("flush connections of %s: %w", join(ips), explain(err))
	}
	return deleted, nil
}

func join(ips []netip.Addr) string {
	if len(ips) > 1 {
		return fmt.Sprintf("%s and %d more", ips[0], len(ips)-1)
	}
	return ips[0].String()
}

func flushConntrack(ips []netip.Addr) (deleted int, err error) {
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
	n := connections(sockets, ips[0])
	if n == 0 {
		return 0, nil
	}
	for _, walk := range walks(ips, n > fewConnections) {
		n, err := walk.flush(sockets)
		deleted += n
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// connections returns how many connections this network namespace tracks, the highest
// number if the kernel does not say.
func connections(sockets map[int]*nl.SocketHandle, ip netip.Addr) uint32 {
	answers, err := conntrackRequest(sockets, ip, getConntrackStats, unix.NLM_F_ACK).Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil || len(answers) != 1 || len(answers[0]) < nl.SizeofNfgenmsg {
		return math.MaxUint32
	}
	entries := nested(answers[0][nl.SizeofNfgenmsg:], statsGlobalEntries)
	if len(entries) != 4 {
		return math.MaxUint32
	}
	return binary.BigEndian.Uint32(entries)
}

// A walk is one pass of the kernel through its table.
type walk struct {
	ips    map[netip.Addr]bool // all of one family
	sides  []side
	filter bool // ask the kernel to filter by the one address and side
}

func walks(ips []netip.Addr, filter bool) (all []walk) {
	if filter && len(ips) <= filtered {
		for _, ip := range ips {
			for _, s := range []side{source, destination} {
				// For IPv6 the kernel's filter drops exactly the wanted entries
				// (measured, Linux 6.18), so only IPv4 is filtered.
				all = append(all, walk{map[netip.Addr]bool{ip: true}, []side{s}, ip.Is4()})
			}
		}
		return all
	}
	byFamily := map[bool]walk{}
	for _, ip := range ips {
		if byFamily[ip.Is4()].ips == nil {
			byFamily[ip.Is4()] = walk{map[netip.Addr]bool{}, []side{source, destination}, false}
		}
		byFamily[ip.Is4()].ips[ip] = true
	}
	return slices.Collect(maps.Values(byFamily))
}

func (w walk) matches(attributes []byte) bool {
	for _, s := range w.sides {
		for _, kind := range []uint16{s.attribute4, s.attribute6} {
			ip, ok := netip.AddrFromSlice(nested(attributes, nl.CTA_TUPLE_ORIG, nl.CTA_TUPLE_IP, kind))
			if ok && w.ips[ip] {
				return true
			}
		}
	}
	return false
}

func (w walk) flush(sockets map[int]*nl.SocketHandle) (deleted int, err error) {
	var ip netip.Addr // any of them
	for ip = range w.ips {
		break
	}
	list := conntrackRequest(sockets, ip, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	if w.filter {
		filterBy(list, ip, w.sides[0])
	}
	// Only matches are copied out of the stream: a busy host has 100,000 entries, and a
	// kernel that does not filter sends them all.
	var matches [][]byte
	err = list.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(m []byte) bool {
		if len(m) > nl.SizeofNfgenmsg && w.matches(m[nl.SizeofNfgenmsg:]) {
			matches = append(matches, bytes.Clone(m[nl.SizeofNfgenmsg:]))
		}
		return true
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, nil // the kernel has netlink for netfilter, but no connection tracking
	}
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return 0, err
	}
	for _, entry := range matches {
		request := conntrackRequest(sockets, ip, nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
		request.AddRawData(entry) // tuple and id: this connection, not a later one
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

// filterBy makes the kernel send only matching entries; kernels before 5.8 ignore it.
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
