package lab

import (
	"errors"
	"fmt"
	"sync"
)

// faults is the set of faults in force.
type faults struct {
	mu    sync.Mutex
	cut   map[*Host]bool
	cable map[*Host]bool // pulled
	rules []rule         // in the switch's nf_tables chain
}

func (f *faults) init() {
	f.cut, f.cable = map[*Host]bool{}, map[*Host]bool{}
}

// Cut makes a host silent and deaf: no frame passes its switch port either way. The
// carrier stays up, so neither side notices. It stands for a hung hypervisor, or a dead
// switch in between.
//
// Mechanism: the port leaves the bridge (like `ip link set PORT nomaster`) and so ends in
// a namespace without addresses. The switch forgets the MACs that it learned there, as it
// would for a host that lost its power.
func (l *Lab) Cut(h *Host) error {
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	port, err := l.port(h)
	if err != nil {
		return fmt.Errorf("cut: %w", err)
	}
	if err := l.bridge.route.LinkSetNoMaster(port); err != nil {
		return fmt.Errorf("cut %s: %w", h.Name, err)
	}
	l.faults.cut[h] = true
	return nil
}

// Restore undoes Cut. When it returns, the host's frames pass again. Restoring a host
// that is not cut is no error.
func (l *Lab) Restore(h *Host) error {
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	return l.restore(h)
}

func (l *Lab) restore(h *Host) error {
	if !l.faults.cut[h] {
		return nil
	}
	port, err := l.port(h)
	if err == nil {
		err = l.connect(port)
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	delete(l.faults.cut, h)
	return nil
}

// PullCable takes away a host's carrier: its eth0 stays up and configured, but has no
// link.
//
// Mechanism: the switch's end of the cable goes down (like `ip link set PORT down`). From
// then on no frame passes. The host's kernel tells its listeners by its link watch, which
// may take up to a second after an earlier change.
func (l *Lab) PullCable(h *Host) error {
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	port, err := l.port(h)
	if err == nil {
		err = l.bridge.route.LinkSetDown(port)
	}
	if err != nil {
		return fmt.Errorf("pull cable of %s: %w", h.Name, err)
	}
	l.faults.cable[h] = true
	return nil
}

// PlugCable undoes PullCable. When it returns, the carrier is there. The switch forwards
// once its link watch has seen the carrier, within about a second. Plugging in a cable
// that was not pulled is no error.
func (l *Lab) PlugCable(h *Host) error {
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	return l.plugCable(h)
}

func (l *Lab) plugCable(h *Host) error {
	if !l.faults.cable[h] {
		return nil
	}
	port, err := l.port(h)
	if err == nil {
		err = l.bridge.route.LinkSetUp(port)
	}
	if err != nil {
		return fmt.Errorf("plug cable of %s: %w", h.Name, err)
	}
	delete(l.faults.cable, h)
	return nil
}

// Sever drops every frame between two hosts, both ways. Both still reach all other hosts,
// so a frame that takes the way through the router still gets from a to b.
//
// Mechanism: two drop rules by in and out port in the bridge's forward hook.
func (l *Lab) Sever(a, b *Host) error {
	return l.addRules(rule{from: a, to: b}, rule{from: b, to: a})
}

// OneWay drops every frame from one host to another; the other direction works.
//
// Mechanism: one drop rule by in and out port in the bridge's forward hook.
func (l *Lab) OneWay(from, to *Host) error {
	return l.addRules(rule{from: from, to: to})
}

// LossBetween drops percent of the frames between two hosts, independently in each
// direction, on top of Loss. 0 ends it.
//
// Mechanism: as for Loss, with in and out port.
func (l *Lab) LossBetween(a, b *Host, percent float64) error {
	if err := checkPercent(percent); err != nil {
		return err
	}
	return l.setRules(func(r rule) bool {
		return r.kind == dropSome && (r.from == a && r.to == b || r.from == b && r.to == a)
	}, rule{kind: dropSome, from: a, to: b, percent: percent}, rule{kind: dropSome, from: b, to: a, percent: percent})
}

// Loss drops percent of all frames that cross the switch, each independently of the
// others; each port's copy of a broadcast counts as a frame of its own. 0 ends it. The
// cable between router and phone loses nothing.
//
// Mechanism: a drop rule on `meta random` (the kernel's PRNG) in the bridge's
// forward hook.
func (l *Lab) Loss(percent float64) error {
	if err := checkPercent(percent); err != nil {
		return err
	}
	return l.setRules(func(r rule) bool {
		return r.kind == dropSome && r.from == nil && r.to == nil
	}, rule{kind: dropSome, percent: percent})
}

func checkPercent(percent float64) error {
	if percent >= 0 && percent <= 100 {
		return nil
	}
	return fmt.Errorf("loss of %v %%: want 0 to 100", percent)
}

// Block drops the frames that a Match selects.
//
// Mechanism: drop rules on ports, EtherType, IP protocol and transport port in
// the bridge's forward hook.
func (l *Lab) Block(m Match) error {
	rules, err := m.rules()
	if err != nil {
		return err
	}
	return l.addRules(rules...)
}

// Unblock undoes a Block of the same match.
func (l *Lab) Unblock(m Match) error {
	return l.setRules(func(r rule) bool { return r.kind == dropMatch && r.match == m })
}

// Mend removes every fault between two hosts: Sever, OneWay, LossBetween, and every Block
// that names both.
func (l *Lab) Mend(a, b *Host) error {
	return l.setRules(func(r rule) bool {
		return r.from == a && r.to == b || r.from == b && r.to == a
	})
}

// Heal undoes every fault.
func (l *Lab) Heal() error {
	errs := []error{l.setRules(func(rule) bool { return true })}
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	for _, h := range l.Hosts() {
		errs = append(errs, l.plugCable(h), l.restore(h))
	}
	return errors.Join(errs...)
}
