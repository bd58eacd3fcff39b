package vip

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Tag is the IFA_PROTO value of addresses that we bound. `ip address` of a recent
// iproute2 shows it as "proto 187". The kernel itself uses 1-3.
const Tag = 187

// ifaProto is IFA_PROTO of linux/if_addr.h (5.18). Neither x/sys nor the netlink library
// has it.
const ifaProto = 11

// An entry is one address in the kernel's table.
type entry struct {
	index   int
	local   netip.Addr // the address itself
	address netip.Addr // the same as local, or the peer's on a point-to-point interface
	prefix  int
	scope   uint8
	flags   uint32 // IFA_F_...
	tag     uint8  // IFA_PROTO, 0 if none
}

// isHost reports whether e has the shape that Bind gives: a prefix of one address.
func (e entry) isHost() bool { return e.prefix == e.local.BitLen() && e.address == e.local }

// lifetime is how long an address stays, in seconds.
type lifetime uint32

// forever is the kernel's value for an address without an end.
const forever lifetime = 1<<32 - 1

// seconds rounds up to whole seconds, at least one.
func seconds(d time.Duration) lifetime {
	return lifetime(max((d+time.Second-1)/time.Second, 1))
}

// cacheInfo builds struct ifa_cacheinfo: preferred and valid lifetime, and two times that
// only the kernel fills in. An IPv4 address is preferred as long as it is valid: it
// serves calls and must not look like an address that is about to go. An IPv6 address is
// never preferred: otherwise RFC 6724 would let the host's own connections leave from the
// VIP, and they would die with it. Sockets that bind the VIP explicitly are not affected.
func (l lifetime) cacheInfo(ip netip.Addr) []byte {
	info := make([]byte, 16)
	if ip.Is4() {
		binary.NativeEndian.PutUint32(info, uint32(l))
	}
	binary.NativeEndian.PutUint32(info[4:], uint32(l))
	return info
}

func family(ip netip.Addr) int {
	if ip.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func (t *Table) request(kind int, flags uint16) *nl.NetlinkRequest {
	return &nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{Type: uint16(kind), Flags: unix.NLM_F_REQUEST | flags},
		Sockets:  t.sockets,
	}
}

func addressHeader(e entry) *nl.IfAddrmsg {
	header := nl.NewIfAddrmsg(family(e.local))
	header.Index = uint32(e.index)
	header.Prefixlen = uint8(e.prefix)
	header.Scope = e.scope
	return header
}

// add asks the kernel to make ip a host address of interface index. mode is NLM_F_EXCL
// (EEXIST if the address is there) or NLM_F_REPLACE.
func (t *Table) add(index int, ip netip.Addr, mode uint16, life lifetime) error {
	err := t.addTagged(index, ip, mode, life, !t.untagged)
	if errors.Is(err, unix.EINVAL) && !t.untagged {
		if err = t.addTagged(index, ip, mode, life, false); err == nil {
			t.untagged = true // the tag was the reason
		}
	}
	return err
}

func (t *Table) addTagged(index int, ip netip.Addr, mode uint16, life lifetime, tagged bool) error {
	request := t.request(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE|mode)
	request.AddData(addressHeader(entry{index: index, local: ip, prefix: ip.BitLen(), scope: unix.RT_SCOPE_UNIVERSE}))
	raw := ip.AsSlice()
	request.AddData(nl.NewRtAttr(unix.IFA_LOCAL, raw))
	request.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, raw))
	request.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(addressFlags(ip))))
	if life != forever || ip.Is6() {
		request.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, life.cacheInfo(ip)))
	}
	if tagged {
		request.AddData(nl.NewRtAttr(ifaProto, []byte{Tag}))
	}
	_, err := t.execute(request, 0)
	return err
}

// addressFlags returns: no prefix route, and for IPv6 no duplicate address detection,
// which would leave the VIP unserved for a second. The lease already says that the VIP is
// ours.
func addressFlags(ip netip.Addr) uint32 {
	if ip.Is6() {
		return unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_NODAD
	}
	return unix.IFA_F_NOPREFIXROUTE
}

// remove deletes exactly e. It is no error if the address or its interface is not there.
func (t *Table) remove(e entry) error {
	request := t.request(unix.RTM_DELADDR, unix.NLM_F_ACK)
	request.AddData(addressHeader(e))
	request.AddData(nl.NewRtAttr(unix.IFA_LOCAL, e.local.AsSlice()))
	request.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, e.address.AsSlice()))
	_, err := t.execute(request, 0)
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// listAttempts is how often list reads the table. If the table changes during a read
// (NLM_F_DUMP_INTR), the result is unreliable.
const listAttempts = 8

// list reads all addresses of the namespace; IPv6 ones only if there is an IPv6 VIP.
func (t *Table) list() ([]entry, error) {
	var messages [][]byte
	err := error(nl.ErrDumpInterrupted)
	for i := 0; i < listAttempts && errors.Is(err, nl.ErrDumpInterrupted); i++ {
		request := t.request(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		request.AddData(nl.NewIfAddrmsg(t.family))
		messages, err = t.execute(request, unix.RTM_NEWADDR)
	}
	if err != nil {
		return nil, err
	}
	all := make([]entry, 0, len(messages))
	for _, m := range messages {
		if e, ok := parseEntry(m); ok {
			all = append(all, e)
		}
	}
	return all, nil
}

func parseEntry(m []byte) (e entry, ok bool) {
	if len(m) < unix.SizeofIfAddrmsg || m[0] != unix.AF_INET && m[0] != unix.AF_INET6 {
		return e, false
	}
	header := nl.DeserializeIfAddrmsg(m)
	e = entry{
		index:  int(header.Index),
		prefix: int(header.Prefixlen),
		scope:  header.Scope,
		flags:  uint32(header.Flags),
	}
	eachAttribute(m[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
		switch kind {
		case unix.IFA_LOCAL:
			e.local, _ = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS:
			e.address, _ = netip.AddrFromSlice(value)
		case unix.IFA_FLAGS:
			if len(value) == 4 {
				e.flags = binary.NativeEndian.Uint32(value)
			}
		case ifaProto:
			if len(value) == 1 {
				e.tag = value[0]
			}
		}
	})
	if !e.local.IsValid() {
		e.local = e.address // for IPv6 the kernel tells the address only once
	}
	return e, e.local.IsValid()
}

// attributeType masks the two flags out of an attribute's type: nested, and network byte
// order (NLA_TYPE_MASK).
const attributeType = 0x3fff

// eachAttribute walks netlink attributes and stops at one that is cut short.
func eachAttribute(b []byte, visit func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return
		}
		visit(binary.NativeEndian.Uint16(b[2:])&attributeType, b[unix.SizeofRtAttr:length])
		b = b[min((length+3)&^3, len(b)):]
	}
}
