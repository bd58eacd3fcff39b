package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/platform"
)

// Bind makes a.IP an address of a.Interface: /32 or /128, scope global, no prefix route,
// valid forever, tagged as ours, for IPv6 without duplicate address detection. Once that
// address is there, Bind removes other copies: on other interfaces or with another prefix
// length. If the address is already bound, Bind changes nothing and wakes no watcher of
// addresses. It is like `ip address add IP/32 dev IF noprefixroute proto 187`.
//
// After an error the VIP may be bound; call Bind again or Unbind.
func (t *Table) Bind(a Address) error { return t.BindSeeing(nil, a) }

// BindSeeing is Bind, but does not look for other copies if v showed none.
func (t *Table) BindSeeing(v *View, a Address) error { return t.bindOrSay(v, a, forever) }

// Reachable returns nil if other machines could hear a.IP on a.Interface: the interface
// exists, is set up and has its carrier. Bind works without a carrier, and sending then
// returns no error.
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

// BindFor is Bind for an address that the kernel removes by itself unless Renew comes in
// time. The kernel removes it after valid has passed, and up to 2.3 s later (lifetimes
// are whole seconds, and the kernel checks them only now and then). If the address is
// already bound for a limited time, BindFor changes nothing, its end included.
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

// Renew makes a.IP stay for valid from now on. It costs some 20 µs. Every watcher of
// addresses gets one RTM_NEWADDR that differs from the last only in the lifetime. No
// route changes, and no other part of the kernel is told.
//
// Renew also brings back an address that somebody has removed.
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
	case !found: // somebody removed it between two requests, or it has another prefix length
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

// makeRoom removes the IPv6 copy that prevents a host copy: an interface has each IPv6
// address once, whatever its prefix length.
func (t *Table) makeRoom(all []entry, index int, ip netip.Addr) error {
	if ip.Is4() {
		return nil
	}
	return t.removeAll(all, func(e entry) bool { return e.local == ip && e.index == index })
}

// find returns the host copy of ip on one interface; the kernel allows only one.
func find(all []entry, index int, ip netip.Addr) (entry, bool) {
	for _, e := range all {
		if e.local == ip && e.index == index && e.isHost() {
			return e, true
		}
	}
	return entry{}, false
}

// settled reports whether a host copy is as Bind makes it. A label and the
// no-prefix-route flag do not count: a host address has no prefix route.
func (t *Table) settled(e entry, life lifetime) bool {
	return t.shaped(e) && (e.flags&unix.IFA_F_PERMANENT != 0) == (life == forever)
}

// shaped is settled without a look at the lifetime.
func (t *Table) shaped(e entry) bool {
	return !e.doubted() && e.scope == unix.RT_SCOPE_UNIVERSE && (e.tag == Tag || t.untagged)
}

// doubted reports an IPv6 address on which duplicate address detection has not ended, or
// has failed. The kernel does not serve such an address and cannot change that in place.
func (e entry) doubted() bool {
	return e.local.Is6() && e.flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 && e.flags&unix.IFA_F_OPTIMISTIC == 0
}

// settle changes a host copy that somebody else bound into what Bind makes.
func (t *Table) settle(e entry, life lifetime) error {
	if t.settled(e, life) {
		return nil
	}
	if e.scope != unix.RT_SCOPE_UNIVERSE || e.doubted() {
		// The kernel changes tag and lifetime in place, but never the scope.
		if err := t.remove(e); err != nil {
			return err
		}
		return t.add(e.index, e.local, unix.NLM_F_EXCL, life)
	}
	if err := t.add(e.index, e.local, unix.NLM_F_REPLACE, life); err != nil {
		return err
	}
	// If the kernel does not keep the tag, settling at each Bind would wake every watcher
	// of addresses each time, us included. So find out whether it keeps it.
	all, err := t.list()
	if err != nil {
		return err
	}
	now, found := find(all, e.index, e.local)
	t.untagged = t.untagged || found && now.tag != Tag
	return nil
}

// Unbind removes a.IP from every interface, whatever its prefix length and whoever bound
// it. If it is not bound, Unbind does nothing. The VIP's connection-tracking entries
// stay: call FlushConntrack, off the fast path.
func (t *Table) Unbind(a Address) error { return t.UnbindSeeing(nil, a) }

// UnbindSeeing is Unbind, but does not look for other copies if v showed none.
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
	// First remove what is nearly always the only copy, without listing. If that fails,
	// the second try below fails too and returns the reason.
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

// Sweep removes every copy, on every interface, of each managed VIP that keep does not
// want, and returns what it removed. It is for the start, before any lease: a crashed
// agent, an ifupdown file or an operator may have left a VIP (a copy on lo answers ARP on
// eth0 too).
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

// removeAll removes all entries that unwanted selects, as far as it can, and returns the
// first error.
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
