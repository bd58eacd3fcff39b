package vip

import (
	"cmp"
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Numbers of linux/if_link.h and linux/ip.h that the libraries lack.
const (
	iflaInetConf              = 1
	devconfPromoteSecondaries = 20 // IPV4_DEVCONF_PROMOTE_SECONDARIES
)

// removeAlone removes e and no other address. With a primary address the kernel also
// deletes the later addresses of the same subnet on that interface: a VIP that somebody
// bound as /24 before the node's own address takes that address along. The kernel keeps
// them if the interface's promote_secondaries is on, so removeAlone turns that on for the
// moment.
func (t *Table) removeAlone(e entry, all []entry) error {
	if !e.leads(all) {
		return t.remove(e)
	}
	// By netlink, because a hardened service may not write to /proc/sys.
	before, readErr := t.promotes(e.index)
	if readErr == nil && before {
		return t.remove(e)
	}
	// If a step here fails, the VIP must still go: two holders are worse than a node
	// without its address.
	setErr := t.setPromote(e.index, true)
	err := t.remove(e)
	if readErr == nil && setErr == nil {
		setErr = t.setPromote(e.index, false)
	}
	return cmp.Or(err, readErr, setErr)
}

// leads reports whether other addresses of the interface depend on e as their primary
// address.
func (e entry) leads(all []entry) bool {
	if e.flags&unix.IFA_F_SECONDARY != 0 || e.local.Is6() { // IPv6 has no primary and secondary addresses
		return false
	}
	subnet := netip.PrefixFrom(e.address, e.prefix)
	for _, other := range all {
		if other.index == e.index && other.prefix == e.prefix &&
			other.flags&unix.IFA_F_SECONDARY != 0 && subnet.Contains(other.address) {
			return true
		}
	}
	return false
}

// promotes reads net.ipv4.conf.IF.promote_secondaries.
func (t *Table) promotes(index int) (on bool, err error) {
	request := t.request(unix.RTM_GETLINK, 0)
	header := nl.NewIfInfomsg(unix.AF_UNSPEC)
	header.Index = int32(index)
	request.AddData(header)
	answer, err := t.execute(request, unix.RTM_NEWLINK)
	if err != nil {
		return false, err
	}
	found := false
	for _, m := range answer {
		if len(m) < unix.SizeofIfInfomsg {
			continue
		}
		devconf := nested(m[unix.SizeofIfInfomsg:], unix.IFLA_AF_SPEC, unix.AF_INET, iflaInetConf)
		// An array of 32-bit values; the first has number 1.
		if at := (devconfPromoteSecondaries - 1) * 4; len(devconf) >= at+4 {
			found, on = true, binary.NativeEndian.Uint32(devconf[at:]) != 0
		}
	}
	if !found {
		return false, errors.New("read promote_secondaries: not in the kernel's answer")
	}
	return on, nil
}

// nested follows path down into attributes and returns the value at its end.
func nested(b []byte, path ...uint16) []byte {
	for _, step := range path {
		var value []byte
		eachAttribute(b, func(kind uint16, v []byte) {
			if kind == step {
				value = v
			}
		})
		b = value
	}
	return b
}

func (t *Table) setPromote(index int, on bool) error {
	value := uint32(0)
	if on {
		value = 1
	}
	request := t.request(unix.RTM_SETLINK, unix.NLM_F_ACK)
	header := nl.NewIfInfomsg(unix.AF_UNSPEC)
	header.Index = int32(index)
	request.AddData(header)
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, nil)
	spec.AddRtAttr(unix.AF_INET|unix.NLA_F_NESTED, nil).
		AddRtAttr(iflaInetConf|unix.NLA_F_NESTED, nil).
		AddRtAttr(devconfPromoteSecondaries, nl.Uint32Attr(value))
	request.AddData(spec)
	_, err := t.execute(request, 0)
	return err
}
