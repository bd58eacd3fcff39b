package sipcheck

import (
	"errors"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// datagrams is the link over UDP: one connected socket, opened when it is first needed
// and kept until it fails.
type datagrams struct {
	local  netip.Addr
	remote netip.AddrPort

	sock   atomic.Pointer[socket] // stored by Run only; wake reads it
	woken  atomic.Bool            // set before the socket is poked, see wake
	wakeup chan struct{}          // wakes Run when there is no socket

	poked    bool      // the socket's read deadline may be past
	reopenAt time.Time // no socket before then
	backoff  time.Duration
	lastErr  error
	out      []byte
	in       []byte
}

func newDatagrams(local netip.Addr, remote netip.AddrPort) *datagrams {
	return &datagrams{local: local, remote: remote, wakeup: make(chan struct{}, 1),
		in: make([]byte, 65535)} // no UDP payload is longer
}

// send sends the flight's message. It is the same each time, except for the sent-by if
// the socket had to be opened again.
func (l *datagrams) send(f *flight, now time.Time, _ bool) (sent bool, err error) {
	s, err := l.socket(now)
	if err != nil {
		return false, err
	}
	l.out = f.appendMessage(l.out[:0], s.local)
	_, err = s.Write(l.out)
	if errors.Is(err, syscall.ECONNREFUSED) && f.sends == 0 {
		// The kernel returns an error of an earlier packet here, and has not sent this
		// one. If this probe is refused too, that error comes later.
		_, err = s.Write(l.out)
	}
	switch {
	case err == nil:
		l.backoff = 0
	case !errors.Is(err, syscall.ECONNREFUSED):
		l.fail(err, now)
	}
	return err == nil, err
}

// socket returns the open socket, or opens one if it is time to.
func (l *datagrams) socket(now time.Time) (*socket, error) {
	if s := l.sock.Load(); s != nil {
		return s, nil
	}
	if now.Before(l.reopenAt) {
		return nil, l.lastErr
	}
	s, err := openSocket(l.local, l.remote)
	if err != nil {
		l.fail(err, now)
		return nil, err
	}
	l.poked = false
	l.sock.Store(s)
	return s, nil
}

// renew opens the new socket before it closes the old one, so that the port differs. If
// no new socket can be opened, the old one stays in use.
func (l *datagrams) renew() bool {
	if s, err := openSocket(l.local, l.remote); err == nil {
		l.close()
		l.poked = false
		l.sock.Store(s)
	}
	return true
}

// fail closes a socket that no longer works (its address is gone, a firewall forbids it)
// and sets the time to open the next.
func (l *datagrams) fail(err error, now time.Time) {
	l.close()
	l.backoff = min(max(2*l.backoff, firstBackoff), lastBackoff)
	l.reopenAt = now.Add(l.backoff)
	l.lastErr = err
}

func (l *datagrams) close() {
	if s := l.sock.Swap(nil); s != nil {
		s.Close()
	}
}

func (l *datagrams) settle(bool, time.Time) {}

func (l *datagrams) connected() (time.Duration, *Certificate) { return 0, nil }

func (l *datagrams) wait() (arrival, bool) {
	s := l.sock.Load()
	if s == nil {
		<-l.wakeup
		l.woken.Store(false)
		return arrival{}, false
	}
	if l.poked {
		s.SetReadDeadline(time.Time{})
	}
	if l.poked = l.woken.Swap(false); l.poked {
		return arrival{}, false
	}
	n, err := s.Read(l.in)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		l.poked = true
		l.woken.Store(false) // Run now looks at whatever wake was called for
		return arrival{}, false
	}
	return arrival{message: l.in[:max(n, 0)], err: err}, true
}

func (l *datagrams) waiting() (arrival, bool) {
	s := l.sock.Load()
	if s == nil {
		return arrival{}, false
	}
	n, err := s.readWaiting(l.in)
	if errors.Is(err, errNothing) {
		return arrival{}, false
	}
	return arrival{message: l.in[:max(n, 0)], err: err}, true
}

// wake ends Run's wait. wake sets the flag before it moves the deadline; wait reads the
// flag after it has moved the deadline back. So one of the two sees the other's change.
func (l *datagrams) wake() {
	l.woken.Store(true)
	if s := l.sock.Load(); s != nil {
		s.SetReadDeadline(time.Unix(1, 0))
	}
	select {
	case l.wakeup <- struct{}{}:
	default:
	}
}
