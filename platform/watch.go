package platform

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// AddressChange is one change on an interface. With Resync it means that changes may have
// been missed.
type AddressChange struct {
	Interface string
	Index     int

	Address netip.Prefix // valid if an address changed; host bits kept
	Added   bool         // false: the address is gone. A renewed lifetime counts as added

	Link *LinkChange // set if the interface itself changed

	// Resync means: read everything again. The other fields but Err are empty.
	Resync bool
	// Err, with Resync, says why the watch hears nothing at present. The watch goes on
	// trying. The next Resync without Err means that it hears again.
	Err error
}

// LinkChange is the state of an interface after a change.
type LinkChange struct {
	Up           bool // set up by the administrator (IFF_UP)
	Carrier      bool // and the link is up, i.e. the cable is in (IFF_LOWER_UP)
	Removed      bool // the interface no longer exists
	HardwareAddr [6]byte
}

// The pause between attempts to listen again doubles. Anything heard resets it.
const (
	watchPauseMin = 50 * time.Millisecond
	watchPauseMax = 5 * time.Second
)

// watchBuffer in bytes holds some thousand changes. The kernel's default of 208 KiB holds
// a few hundred, less than a container host makes in a burst.
const watchBuffer = 1 << 20

// WatchAddresses sends every change of an address or an interface, in the kernel's order,
// over one netlink subscription; like `ip monitor address link`. The channel holds buffer
// changes and is closed after ctx ends.
//
// The first change is a Resync: read everything then; from there on no change is missed.
// Another Resync follows if the reader was too slow for the kernel's buffer (ENOBUFS), or
// after any other error that made the watch subscribe again.
func WatchAddresses(ctx context.Context, buffer int) (<-chan AddressChange, error) {
	return watchAddresses(ctx, buffer, subscribeAddresses)
}

func watchAddresses(ctx context.Context, buffer int, subscribe func() (netlinkReceiver, error)) (<-chan AddressChange, error) {
	socket, err := subscribe()
	if err != nil {
		return nil, fmt.Errorf("watch addresses: %w", err)
	}
	w := &addressWatch{
		ctx:       ctx,
		out:       make(chan AddressChange, buffer),
		subscribe: subscribe,
		pause:     watchPauseMin,
	}
	go w.run(socket)
	return w.out, nil
}

func subscribeAddresses() (netlinkReceiver, error) {
	socket, err := openMonitor(unix.NETLINK_ROUTE, watchBuffer,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return nil, fmt.Errorf("subscribe by netlink: %w", err)
	}
	return socket, nil
}

// addressWatch is the state of one watch, owned by its goroutine.
type addressWatch struct {
	ctx       context.Context
	out       chan AddressChange
	subscribe func() (netlinkReceiver, error)
	pause     time.Duration
	links     map[int]linkState
	syncing   bool // between askLinks and the end of its answer
}

// run subscribes again and again until ctx ends.
func (w *addressWatch) run(socket netlinkReceiver) {
	defer close(w.out)
	err := w.listen(socket)
	for w.ctx.Err() == nil {
		if !w.send(AddressChange{Resync: true, Err: fmt.Errorf("watch addresses: %w", err)}) || !w.wait() {
			return
		}
		if socket, err = w.subscribe(); err == nil {
			err = w.listen(socket)
		}
	}
}

// listen reads from one subscription until an error or the end of ctx, then closes it.
func (w *addressWatch) listen(socket netlinkReceiver) error {
	defer socket.Close()
	defer context.AfterFunc(w.ctx, func() { socket.Close() })()
	err := w.askLinks(socket)
	for err == nil && w.ctx.Err() == nil {
		var messages []syscall.NetlinkMessage
		messages, err = socket.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			err = w.recover(socket)
		case err == nil:
			err = w.deliver(messages)
		}
	}
	return err
}

// recover handles an overrun. The kernel goes on dropping, without reporting it again,
// until the socket has been empty once (NETLINK_S_CONGESTED). And a full socket may
// refuse the answer to askLinks. So recover empties the socket first. What it throws away
// is older than the Resync that follows.
func (w *addressWatch) recover(socket netlinkReceiver) error {
	if err := socket.Drain(); err != nil {
		return err
	}
	return w.askLinks(socket) // names may have changed too
}

// askLinks makes the kernel list all interfaces on the subscription itself, so that names
// are known before the first change. Read everything when that list ends: every later
// change is sent.
func (w *addressWatch) askLinks(socket netlinkReceiver) error {
	w.syncing = true
	w.links = make(map[int]linkState)
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	if err := socket.Send(request); err != nil {
		return fmt.Errorf("list interfaces by netlink: %w", err)
	}
	return nil
}

func (w *addressWatch) deliver(messages []syscall.NetlinkMessage) error {
	w.pause = watchPauseMin
	for _, m := range messages {
		switch m.Header.Type {
		case unix.NLMSG_ERROR: // the answer to askLinks, refused
			return netlinkError(m)
		case unix.NLMSG_DONE:
			w.syncing = false
			w.send(AddressChange{Resync: true})
		default:
			// The Resync covers everything that comes before the list of names ends.
			if change, ok := w.parse(m); ok && !w.syncing {
				w.send(change)
			}
		}
	}
	return nil
}

// send waits for the reader. It returns false if ctx ends first.
func (w *addressWatch) send(c AddressChange) bool {
	select {
	case w.out <- c:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// wait sleeps for the current pause and doubles it. It returns false if ctx ends first.
func (w *addressWatch) wait() bool {
	timer := time.NewTimer(w.pause)
	defer timer.Stop()
	w.pause = min(2*w.pause, watchPauseMax)
	select {
	case <-timer.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}
