package sipcheck

import (
	"net/netip"
	"time"
)

// link carries messages to one target and back. Only Run's goroutine uses it, except for
// wake, which any goroutine may call.
type link interface {
	// send sends the message of the probe under way, the first time or again. With anew
	// it does not use a connection that an earlier probe used. If err is nil and sent is
	// false, the message could not leave yet: call send again when an arrival says ready.
	send(f *flight, now time.Time, anew bool) (sent bool, err error)
	// wait sleeps until something arrives, or until wake is called (then ok is false).
	wait() (a arrival, ok bool)
	// waiting returns what has already arrived, without sleeping.
	waiting() (a arrival, ok bool)
	// fail closes what no longer works because of err.
	fail(err error, now time.Time)
	// settle tells the link that the probe under way has ended.
	settle(answered bool, now time.Time)
	// renew makes the next message leave from another port. It returns false if that is
	// not needed, because only the target itself can refuse.
	renew() bool
	// connected returns how long the connection took to open, and its certificate;
	// nothing over UDP.
	connected() (took time.Duration, cert *Certificate)
	wake()
	close()
}

// arrival is what a link returns: a message, an error, or word that it is connected.
type arrival struct {
	message []byte // one SIP message, valid until the next wait
	ready   bool   // connected: send now
	closed  bool   // err is the end of a connection that had been ready
	err     error
}

// localOf returns a socket's own address as it stands in messages.
func localOf(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
