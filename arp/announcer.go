// Package arp makes the network agree with the kernel: it tells the neighbours which MAC
// address a VIP is at, watches for rivals and proves that the router follows.
package arp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Options of an Announcer.
type Options struct {
	// Refresh is the time between announcements after the burst that follows a takeover
	// ([announce] refresh). A switch forgets a silent port before a router forgets an
	// entry. Refresh must be positive.
	Refresh time.Duration

	// Limit is how many ARP and ND frames may leave by an interface in a second
	// ([announce] limit), first announcements included: at least MinLimit. With 0, first
	// announcements are never held back.
	Limit int

	// OnError, if set, is told of each failure of an announcement that was scheduled or
	// waited for its turn. It is called on the goroutine that sends, must not wait or
	// call the Announcer, and may be called just after Stop has returned.
	OnError func(error)

	// May, if set, says whether addr may still be announced: its lease has not ended. It
	// is called right before each frame, because an agent that was stopped for a while
	// must look at the clock before it announces. It must not wait.
	May func(addr netip.Addr) bool
}

// Stats are counters since New.
type Stats struct {
	Sent   uint64 // frames handed to the kernel, two per IPv4 announcement, one per IPv6
	Errors uint64 // announcements that failed
}

// An Announcer sends gratuitous ARP and unsolicited neighbour advertisements for the VIPs
// that this host holds. Its methods may be called from any goroutine.
type Announcer struct {
	refresh atomic.Int64 // a time.Duration
	burst   []time.Duration
	onError func(error)
	allowed func(netip.Addr) bool
	send    func(addr netip.Addr, ifname string, first bool) error
	socket  *socket
	limit   *limiter // nil: no limit at all

	sent, errors atomic.Uint64
	running      sync.WaitGroup

	// pace is held while a queue sends a first announcement, so dequeue waits until that
	// announcement has left.
	pace    sync.Mutex
	queues  map[string]*queue
	sendOne func(addr netip.Addr, ifname string, second bool) error
	left    chan struct{}

	mu        sync.Mutex // guards the fields below; never held while sending
	schedules map[netip.Addr]*schedule
	closed    bool
}

// New opens the Announcer's only raw socket, in the network namespace of the caller. It
// needs CAP_NET_RAW.
func New(o Options) (*Announcer, error) {
	if o.Refresh <= 0 {
		return nil, fmt.Errorf("announce every %v: must be positive", o.Refresh)
	}
	if o.Limit != 0 && o.Limit < MinLimit {
		return nil, fmt.Errorf("announce with %d frames a second: must be at least %d, or 0 for no limit", o.Limit, MinLimit)
	}
	s, err := openSocket()
	if err != nil {
		return nil, fmt.Errorf("open raw socket for ARP: %w", explain(err))
	}
	a := &Announcer{
		burst:     burst[:],
		onError:   o.OnError,
		socket:    s,
		limit:     newLimiter(),
		allowed:   o.May,
		queues:    make(map[string]*queue),
		left:      make(chan struct{}, 1),
		schedules: make(map[netip.Addr]*schedule),
	}
	a.SetRefresh(o.Refresh)
	a.SetLimit(o.Limit)
	a.send, a.sendOne = a.sendBoth, a.sendForm
	return a, nil
}

// SetRefresh changes Options.Refresh after a reload. d must be positive. The next
// announcement still leaves when it was already due.
func (a *Announcer) SetRefresh(d time.Duration) { a.refresh.Store(int64(d)) }

// Warm returns an error if announcements could not leave by ifname: it must exist and be
// Ethernet. It sends nothing.
func (a *Announcer) Warm(ifname string) error {
	err := a.socket.with(func(fd int) error {
		_, _, err := look(fd, ifname)
		return err
	})
	if err != nil {
		return fmt.Errorf("announce on %s: %w", ifname, explain(err))
	}
	return nil
}

// Announce tells the neighbours on ifname at once that addr is here: ARP request form and
// reply form, both broadcast; for IPv6 a neighbour advertisement. Call it right after
// binding, then call Start for the repetitions.
//
// Announce takes about 10 µs per frame and never waits. Without Options.Limit it is never
// held back, because phones reach nobody until the frames have left. With a limit the
// frames may leave later; Waits and Left tell when.
func (a *Announcer) Announce(addr netip.Addr, ifname string) error {
	var err error
	if a.limit.paced() {
		err = a.enqueue(addr, ifname)
	} else {
		err = a.send(addr, ifname, true)
	}
	if err != nil {
		a.errors.Add(1)
		return fmt.Errorf("announce %s on %s: %w", addr, ifname, explain(err))
	}
	return nil
}

var errNoAddress = errors.New("not an address")

// sendBoth sends both forms of an announcement, or the only one for IPv6. If one form
// fails, the other is still sent. An announcement that is not the first of a tenure may
// be held back: the error is then a *heldBack.
func (a *Announcer) sendBoth(addr netip.Addr, ifname string, first bool) error {
	if !addr.IsValid() {
		return errNoAddress
	}
	if !a.may(addr) {
		return nil
	}
	return a.socket.with(func(fd int) error {
		index, mac, err := look(fd, ifname)
		if err != nil {
			return err
		}
		if addr.Is6() {
			if err := a.mayLeave(ifname, 1, first); err != nil {
				return err
			}
			return a.transmitForm(fd, index, mac, addr, false)
		}
		if err := a.mayLeave(ifname, 2, first); err != nil {
			return err
		}
		// Request form first: every known neighbour takes it.
		return cmp.Or(a.transmitForm(fd, index, mac, addr, false), a.transmitForm(fd, index, mac, addr, true))
	})
}

// sendForm sends one form of an announcement.
func (a *Announcer) sendForm(addr netip.Addr, ifname string, second bool) error {
	return a.socket.with(func(fd int) error {
		index, mac, err := look(fd, ifname)
		if err != nil {
			return err
		}
		return a.transmitForm(fd, index, mac, addr, second)
	})
}

// transmitForm builds the frame of one form and sends it. IPv6 has only one.
func (a *Announcer) transmitForm(fd, index int, mac hardwareAddr, addr netip.Addr, second bool) error {
	if addr.Is6() {
		f, err := advertisement(mac, addr)
		if err != nil {
			return err
		}
		return a.transmit(fd, index, f)
	}
	operation := uint16(operationRequest)
	if second {
		operation = operationReply
	}
	f := announcement(operation, mac, addr)
	return a.transmit(fd, index, f[:])
}

// mayLeave counts the frames of a first announcement. It returns a *heldBack if another
// announcement would exceed the limit.
func (a *Announcer) mayLeave(ifname string, frames int, first bool) error {
	if first {
		a.limit.count(ifname, frames)
		return nil
	}
	if wait, ok := a.limit.take(ifname, frames, 0); !ok {
		return &heldBack{wait}
	}
	return nil
}

func (a *Announcer) transmit(fd, index int, f []byte) error {
	err := transmit(fd, index, f)
	if err == nil {
		a.sent.Add(1)
	}
	return err
}

// heldBack is not a failure: the frame would have exceeded the limit. It says how long to
// wait before the next try.
type heldBack struct{ wait time.Duration }

func (h *heldBack) Error() string {
	return fmt.Sprintf("held back for %v, so that no switch shuts the port", h.wait)
}

// failed counts and reports the failure of an announcement whose caller gets no error.
func (a *Announcer) failed(addr netip.Addr, ifname string, err error) {
	a.errors.Add(1)
	if a.onError != nil {
		a.onError(fmt.Errorf("announce %s on %s: %w", addr, ifname, explain(err)))
	}
}

func (a *Announcer) may(addr netip.Addr) bool { return a.allowed == nil || a.allowed(addr) }

func (a *Announcer) Stats() Stats {
	return Stats{Sent: a.sent.Load(), Errors: a.errors.Load()}
}

// Close stops every schedule, waits for the goroutines and closes the socket.
func (a *Announcer) Close() error {
	a.mu.Lock()
	a.closed = true
	for addr, s := range a.schedules {
		s.stop()
		delete(a.schedules, addr)
	}
	a.mu.Unlock()
	a.clearQueues()
	a.running.Wait()
	if err := a.socket.close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close raw socket for ARP: %w", err)
	}
	return nil
}

// explain adds a hint to the errno of a send.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (needs CAP_NET_RAW)", err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w (is it the interface's name? see ip link)", err)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w (only Ethernet interfaces have ARP)", err)
	case errors.Is(err, unix.ENETDOWN):
		return fmt.Errorf("%w (ip link set it up)", err)
	}
	return err
}
