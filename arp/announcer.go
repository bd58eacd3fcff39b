// Package arp makes the network agree: it tells the neighbours which MAC
// address a VIP is at.
package arp

import (
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
	// Refresh is the time between announcements once the burst after a takeover
	// is over ([announce] refresh): a switch forgets a silent port before a
	// router forgets an entry. It must be positive.
	Refresh time.Duration

	// OnError, if set, hears each failure of a scheduled announcement. It is
	// called on the schedule's own goroutine, must not wait, and may come just
	// after Stop has returned.
	OnError func(error)
}

// Stats count since New.
type Stats struct {
	Sent   uint64 // frames handed to the kernel, two per announcement
	Errors uint64 // announcements that failed
}

// An Announcer sends gratuitous ARP for the VIPs that this host holds. Its
// methods may be called from any goroutine.
type Announcer struct {
	refresh atomic.Int64 // a time.Duration
	burst   []time.Duration
	onError func(error)
	send    func(addr netip.Addr, ifname string) error
	socket  *socket

	sent, errors atomic.Uint64
	running      sync.WaitGroup

	mu        sync.Mutex // guards the two below; never held while sending
	schedules map[netip.Addr]*schedule
	closed    bool
}

// New opens the Announcer's one raw socket, in the network namespace of the
// caller. It needs CAP_NET_RAW.
func New(o Options) (*Announcer, error) {
	if o.Refresh <= 0 {
		return nil, fmt.Errorf("announce every %v: must be positive", o.Refresh)
	}
	s, err := openSocket()
	if err != nil {
		return nil, fmt.Errorf("open raw socket for ARP: %w", explain(err))
	}
	a := &Announcer{
		burst:     burst[:],
		onError:   o.OnError,
		socket:    s,
		schedules: make(map[netip.Addr]*schedule),
	}
	a.SetRefresh(o.Refresh)
	a.send = a.sendBoth
	return a, nil
}

// SetRefresh changes Options.Refresh, after a reload. It must be positive. What
// is scheduled already is sent when it was due.
func (a *Announcer) SetRefresh(d time.Duration) { a.refresh.Store(int64(d)) }

// Warm says whether announcements could leave by ifname: it is there, and it is
// Ethernet. Nothing is sent.
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

// Announce tells the neighbours on ifname at once that addr is here: ARP
// request form and reply form, both broadcast. Call it right after binding,
// then Start the rest. It takes some 10 µs per frame and never waits.
func (a *Announcer) Announce(addr netip.Addr, ifname string) error {
	if err := a.send(addr, ifname); err != nil {
		a.errors.Add(1)
		return fmt.Errorf("announce %s on %s: %w", addr, ifname, explain(err))
	}
	return nil
}

func (a *Announcer) sendBoth(addr netip.Addr, ifname string) error {
	if !addr.Is4() {
		return errors.New("not an IPv4 address")
	}
	return a.socket.with(func(fd int) error {
		index, mac, err := look(fd, ifname)
		if err != nil {
			return err
		}
		// The request first: every neighbour known takes that form. One form
		// that fails does not keep back the other.
		request := announcement(operationRequest, mac, addr)
		reply := announcement(operationReply, mac, addr)
		first := a.count(transmit(fd, index, &request))
		if err := a.count(transmit(fd, index, &reply)); first == nil {
			first = err
		}
		return first
	})
}

func (a *Announcer) count(err error) error {
	if err == nil {
		a.sent.Add(1)
	}
	return err
}

// Stats reads the counters.
func (a *Announcer) Stats() Stats {
	return Stats{Sent: a.sent.Load(), Errors: a.errors.Load()}
}

// Close stops every schedule, waits for their goroutines and closes the socket.
func (a *Announcer) Close() error {
	a.mu.Lock()
	a.closed = true
	for addr, s := range a.schedules {
		s.stop()
		delete(a.schedules, addr)
	}
	a.mu.Unlock()
	a.running.Wait()
	if err := a.socket.close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close raw socket for ARP: %w", err)
	}
	return nil
}

// explain adds what would help to the errno of a send.
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
