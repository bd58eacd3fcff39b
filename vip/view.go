package vip

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"sipalive/platform"
)

// A View is the kernel's address table as read at one moment, for a caller that checks
// many VIPs. Reading the table again for each VIP costs the square of their number (256
// VIPs: 0.2 s of every second on the holder). A nil View shows nothing.
type View struct {
	t       *Table
	entries map[netip.Addr][]entry // of managed VIPs
}

// View reads the table.
func (t *Table) View() (*View, error) {
	all, err := t.list()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	v := &View{t: t, entries: map[netip.Addr][]entry{}}
	for _, e := range all {
		if _, ours := t.managed[e.local]; ours {
			v.entries[e.local] = append(v.entries[e.local], e)
		}
	}
	return v, nil
}

// Absent reports whether no interface had the address.
func (v *View) Absent(ip netip.Addr) bool { return v != nil && len(v.entries[ip]) == 0 }

// only reports whether the address was there once, on interface index and as a host copy.
func (v *View) only(ip netip.Addr, index int) bool {
	return v != nil && len(v.entries[ip]) == 1 && v.entries[ip][0].index == index && v.entries[ip][0].isHost()
}

// Settled reports whether the address was as Bind makes it (if ends, as BindFor does) and
// nowhere else. Then Bind or BindFor would change nothing.
func (v *View) Settled(a Address, ends bool) bool {
	if v == nil || len(v.entries[a.IP]) != 1 {
		return false
	}
	e := v.entries[a.IP][0]
	index, err := platform.InterfaceIndex(v.t.socket.GetFd(), a.Interface)
	return err == nil && e.index == index && e.isHost() && v.t.shaped(e) && (e.flags&unix.IFA_F_PERMANENT == 0) == ends
}
