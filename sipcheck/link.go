package sipcheck

import (
	"net/netip"
	"time"
)

// link is the way to a target: a socket, and what is known of it. Only Run's
// goroutine uses it, but for wake.
type link interface {
	// send sends the probe under way, or sends it again. With anew it does not go
	// by a connection that an earlier probe used. A nil error with sent false means
	// that it leaves later: call send again when an arrival says ready.
	send(f *flight, now time.Time, anew bool) (sent bool, err error)
	// wait sleeps until something has arrived, or wake is called (ok is then false).
	wait() (a arrival, ok bool)
	// waiting takes what had arrived already, without sleeping.
	waiting() (a arrival, ok bool)
	// fail closes what an error has made useless.
	fail(err error, now time.Time)
	// settle ends the probe under way.
	settle(answered bool, now time.Time)
	// renew has the next message leave from another port; false: it is not needed, since
	// nobody but the target can refuse.
	renew() bool
	// connected is what the connection cost and showed; nothing over UDP.
	connected() (took time.Duration, cert *Certificate)
	wake()
	close()
}

// arrival is what a link has to tell.
type arrival struct {
	message []byte // one SIP message, valid until the next wait
	ready   bool   // connected: send now
	closed  bool   // err is the end of a connection that had been ready
	err     error
}

// localOf is a socket's own address as it goes into messages.
func localOf(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
