package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/platform"
)

// Bind makes a.IP an address of a.Interface: /32 or /128, scope global, no prefix
// route, valid forever, tagged as ours, of IPv6 without duplicate address
// detection; and an address of nothing else: other copies,
// on other interfaces or with another prefix length, are removed once the right
// one is there. Bound already, it changes nothing and wakes no watcher of
// addresses. Like `ip address add IP/32 dev IF noprefixroute proto 187`.
//
// On error the VIP may be bound; Bind again or Unbind.
func (t *Table) Bind(a Address) error { return t.BindSeeing(nil, a) }

// BindSeeing is Bind without another look for other copies, where the View has
// shown none.
func (t *Table) BindSeeing(v *View, a Address) error { return t.bindOrSay(v, a, forever) }

// Reachable is nil if somebody could hear a.IP on a.Interface: it is there, set
// up, and has its carrier. Bind works without; nothing it sends is an error then.
func (t *Table) Reachable(a Address) error {
	running, err := platform.InterfaceRunning(t.socket.GetFd(), a.Interface)
	if err == nil && !running {
		err = errors.New("no carrier (is it set up, and the cable in? see ip link)")
	}
	if err != nil {
		return fmt.Errorf("hold %s on %s: %w", a.IP, a.Interface, explain(err))
	}
	return nil
}

// BindFor is Bind for an address that the kernel removes by itself, unless
// Renew comes in time: not before valid has passed, and up to 2.3 s later
// (lifetimes are whole seconds, and the kernel looks at them once in a while).
// Bound already for a time, it changes nothing: its end neither.
func (t *Table) BindFor(a Address, valid time.Duration) error { return t.BindForSeeing(nil, a, valid) }

// BindForSeeing is to BindFor what BindSeeing is to Bind.
func (t *Table) BindForSeeing(v *View, a Address, valid time.Duration) error {
	return t.bindOrSay(v, a, seconds(valid))
}

func (t *Table) bindOrSay(v *View, a Address, life lifetime) error {
	if err := t.bind(v, a, life); err != nil {
		return fmt.Errorf("bind %s/%d on %s: %w", a.IP, a.IP.BitLen(), a.Interface, explain(err))
	}
	return nil
}

// Renew has a.IP stay for valid from now on. It costs some 20 µs, and every
// watcher of addresses one RTM_NEWADDR that differs from the last in nothing but
// the lifetime: no route changes, and no other part of the kernel is told.
//
// An address that somebody has removed comes back by it.
func (t *Table) Renew(a Address, valid time.Duration) error {
	err := t.check(a)
	if err == nil {
		var index int
		if index, err = platform.InterfaceIndex(t.socket.GetFd(), a.Interface); err == nil {
			err = t.add(index, a.IP, unix.NLM_F_REPLACE, seconds(valid))
		}
	}
	if err != nil {
		return fmt.Errorf("renew %s/%d on %s: %w", a.IP, a.IP.BitLen(), a.Interface, explain(err))
	}
	return nil
}

func (t *Table) bind(v *View, a Address, life lifetime) error {
	if err := t.check(a); err != nil {
		return err
	}
	index, err := platform.InterfaceIndex(t.socket.GetFd(), a.Interface)
	if err != nil {
		return err
	}
	err = t.add(index, a.IP, unix.NLM_F_EXCL, life)
	existed := errors.Is(err, unix.EEXIST)
	if err != nil && !existed || err == nil && v.Absent(a.IP) {
		return err
	}
	all, err := t.list()
	if err != nil {
		return fmt.Errorf("look for other copies: %w", err)
	}
	right, found := find(all, index, a.IP)
	switch {
	case !found: // removed by someone between two requests, or bound with another prefix length
		if err := t.makeRoom(all, index, a.IP); err != nil {
			return err
		}
		if err := t.add(index, a.IP, unix.NLM_F_EXCL, life); err != nil {
			return err
		}
	case existed:
		if err := t.settle(right, life); err != nil {
			return err
		}
	case right.tag != Tag:
		t.untagged = true
	}
	return t.removeAll(all, func(e entry) bool {
		return e.local == a.IP && !(e.index == index && e.isHost())
	})
}

// makeRoom removes what keeps an IPv6 host copy out: an interface has such an
// address once, whatever its prefix length.
func (t *Table) makeRoom(all []entry, index int, ip netip.Addr) error {
	if ip.Is4() {
		return nil
	}
	return t.removeAll(all, func(e entry) bool { return e.local == ip && e.index == index })
}

// find is the host copy of ip on one interface; the kernel allows only one.
func find(all []entry, index int, ip netip.Addr) (entry, bool) {
	for _, e := range all {
		if e.local == ip && e.index == index && e.isHost() {
			return e, true
		}
	}
	return entry{}, false
}

// settled: a host copy is as Bind makes it. A label and the no-prefix-route
// flag make no difference to a host address, which has no prefix route.
func (t *Table) settled(e entry, life lifetime) bool {
	return t.shaped(e) && (e.flags&unix.IFA_F_PERMANENT != 0) == (life == forever)
}

// shaped: settled, however long it stays.
func (t *Table) shaped(e entry) bool {
	return !e.doubted() && e.scope == unix.RT_SCOPE_UNIVERSE && (e.tag == Tag || t.untagged)
}

// doubted: an IPv6 address on which duplicate address detection has not ended,
// or has failed; the kernel does not serve it, and changes nothing about that in
// place.
func (e entry) doubted() bool {
	return e.local.Is6() && e.flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 && e.flags&unix.IFA_F_OPTIMISTIC == 0
}

// settle makes a host copy that someone else bound as Bind makes it.
func (t *Table) settle(e entry, life lifetime) error {
	if t.settled(e, life) {
		return nil
	}
	if e.scope != unix.RT_SCOPE_UNIVERSE || e.doubted() {
		// The kernel changes tag and lifetime in place, the scope never.
		if err := t.remove(e); err != nil {
			return err
		}
		return t.add(e.index, e.local, unix.NLM_F_EXCL, life)
	}
	if err := t.add(e.index, e.local, unix.NLM_F_REPLACE, life); err != nil {
		return err
	}
	// Without the tag kept, settling again each time would wake each watcher
	// each time, us included.
	all, err := t.list()
	if err != nil {
		return err
	}
	now, found := find(all, e.index, e.local)
	t.untagged = t.untagged || found && now.tag != Tag
	return nil
}

// Unbind removes a.IP from every interface, whatever its prefix length and
// whoever bound it. Not bound, it does nothing. The connection-tracking entries
// of the VIP outlive it: call FlushConntrack, off the fast path.
func (t *Table) Unbind(a Address) error { return t.UnbindSeeing(nil, a) }

// UnbindSeeing is Unbind without another look for other copies, where the View has
// shown none.
func (t *Table) UnbindSeeing(v *View, a Address) error {
	if err := t.unbind(v, a); err != nil {
		return fmt.Errorf("unbind %s: %w", a.IP, explain(err))
	}
	return nil
}

func (t *Table) unbind(v *View, a Address) error {
	if err := t.check(a); err != nil {
		return err
	}
	// First what is nearly always all there is, without looking. Should it fail,
	// so will the second try below, and say why.
	if index, err := platform.InterfaceIndex(t.socket.GetFd(), a.Interface); err == nil {
		err := t.remove(entry{index: index, local: a.IP, address: a.IP, prefix: a.IP.BitLen()})
		if err == nil && v.only(a.IP, index) {
			return nil
		}
	}
	all, err := t.list()
	if err != nil {
		return fmt.Errorf("look for copies: %w", err)
	}
	return t.removeAll(all, func(e entry) bool { return e.local == a.IP })
}

// Sweep removes every copy, on every interface, of each managed VIP that keep
// does not want, and tells what it removed. For the start, before any lease: a
// VIP that a crashed agent, an ifupdown file or a hand left behind (a copy on lo
// answers ARP on eth0 too).
func (t *Table) Sweep(keep func(netip.Addr) bool) (removed []Bound, err error) {
	all, err := t.list()
	if err != nil {
		return nil, fmt.Errorf("sweep: list addresses: %w", err)
	}
	err = t.removeAll(all, func(e entry) bool {
		if _, ok := t.managed[e.local]; !ok || keep(e.local) {
			return false
		}
		removed = append(removed, t.describe(e))
		return true
	})
	if err != nil {
		return removed, fmt.Errorf("sweep: %w", explain(err))
	}
	return removed, nil
}

// removeAll removes what unwanted selects of all, as much as it can, and
// returns the first error.
func (t *Table) removeAll(all []entry, unwanted func(entry) bool) error {
	var firstErr error
	for _, e := range all {
		if !unwanted(e) {
			continue
		}
		if err := t.removeAlone(e, all); err != nil && firstErr == nil {
			firstErr = fmt.Errorf("remove %s/%d from interface %d: %w", e.local, e.prefix, e.index, err)
		}
	}
	return firstErr
}
