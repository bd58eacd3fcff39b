package platform

import (
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// linkState is the last state of an interface that the watch heard of.
type linkState struct {
	name string
	LinkChange
}

// parse turns one kernel message into a change. ok is false if it changes nothing that a
// reader could see.
func (w *addressWatch) parse(m syscall.NetlinkMessage) (change AddressChange, ok bool) {
	switch m.Header.Type {
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return w.parseAddress(m)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.parseLink(m)
	}
	return change, false
}

func (w *addressWatch) parseAddress(m syscall.NetlinkMessage) (change AddressChange, ok bool) {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return change, false
	}
	header := nl.DeserializeIfAddrmsg(m.Data)
	attributes, err := nl.ParseRouteAttr(m.Data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return change, false
	}
	var address netip.Addr
	for _, a := range attributes {
		// IPv4 messages carry both. On a point-to-point interface ADDRESS is the peer's.
		// IPv6 messages carry LOCAL only there.
		switch a.Attr.Type {
		case unix.IFA_LOCAL:
			address, _ = netip.AddrFromSlice(a.Value)
		case unix.IFA_ADDRESS:
			if !address.IsValid() {
				address, _ = netip.AddrFromSlice(a.Value)
			}
		}
	}
	change = AddressChange{
		Interface: w.links[int(header.Index)].name,
		Index:     int(header.Index),
		Address:   netip.PrefixFrom(address, int(header.Prefixlen)),
		Added:     m.Header.Type == unix.RTM_NEWADDR,
	}
	return change, change.Address.IsValid()
}

func (w *addressWatch) parseLink(m syscall.NetlinkMessage) (change AddressChange, ok bool) {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return change, false
	}
	header := nl.DeserializeIfInfomsg(m.Data)
	// When a port leaves its bridge, the kernel sends RTM_DELLINK of family AF_BRIDGE,
	// but the interface still exists.
	if header.Family != unix.AF_UNSPEC {
		return change, false
	}
	attributes, err := nl.ParseRouteAttr(m.Data[unix.SizeofIfInfomsg:])
	if err != nil {
		return change, false
	}
	index := int(header.Index)
	now := linkState{}
	for _, a := range attributes {
		switch a.Attr.Type {
		case unix.IFLA_IFNAME:
			now.name = nl.BytesToString(a.Value)
		case unix.IFLA_ADDRESS:
			copy(now.HardwareAddr[:], a.Value)
		}
	}
	if m.Header.Type == unix.RTM_DELLINK {
		now.Removed = true
		delete(w.links, index)
	} else {
		now.Up = header.Flags&unix.IFF_UP != 0
		now.Carrier = header.Flags&unix.IFF_LOWER_UP != 0
		before, known := w.links[index]
		w.links[index] = now
		// Parts of a list are answers to askLinks, not changes. And the kernel sends the
		// same state again for statistics and the like.
		if m.Header.Flags&unix.NLM_F_MULTI != 0 || known && before == now {
			return change, false
		}
	}
	return AddressChange{Interface: now.name, Index: index, Link: &now.LinkChange}, true
}
