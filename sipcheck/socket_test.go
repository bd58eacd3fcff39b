package sipcheck

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// byHand returns a prober with an open socket, without Run.
func byHand(t *testing.T, target Target) (*Prober, *socket) {
	t.Helper()
	p := NewProber(target, Options{})
	s, err := openSocket(netip.Addr{}, target.Address)
	if err != nil {
		t.Fatal(err)
	}
	l := p.link.(*datagrams)
	l.sock.Store(s)
	t.Cleanup(l.close)
	return p, s
}

// TestRefusalOfAnEarlierPacketIsNotThisProbes: the kernel returns the error of an earlier
// packet at the next send, and does not send. The server is back by then and must be
// asked.
func TestRefusalOfAnEarlierPacketIsNotThisProbes(t *testing.T) {
	at := ownAddress()
	p, s := byHand(t, quick(at))
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	serve(t, at, always("200 OK"))
	p.step(time.Now())
	for deadline := time.Now().Add(patience); p.judge.verdict == Unknown && time.Now().Before(deadline); {
		p.wait(time.Now().Add(time.Second))
	}
	if p.judge.verdict != Up {
		t.Fatalf("%v, %+v", p.judge.verdict, p.Stats())
	}
}

// TestWakeBeforeWaitIsNotLost: wake may come between step and wait. wait moves the
// deadline, which must not undo the wake.
func TestWakeBeforeWaitIsNotLost(t *testing.T) {
	for _, c := range []string{"with a socket", "without one"} {
		t.Run(c, func(t *testing.T) {
			p, _ := byHand(t, quick(ownAddress()))
			if c == "without one" {
				p.link.close()
			}
			p.link.wake()
			start := time.Now()
			p.wait(start.Add(patience))
			if time.Since(start) > patience/2 {
				t.Fatal("slept through it")
			}
		})
	}
}

func TestFailedSocketIsOpenedAgainWithBackoff(t *testing.T) {
	p, _ := byHand(t, quick(ownAddress()))
	l := p.link.(*datagrams)
	now := time.Now()
	for _, pause := range []time.Duration{10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
		pause *= time.Millisecond
		l.fail(syscall.EPERM, now)
		if l.sock.Load() != nil {
			t.Fatal("a failed socket stays open")
		}
		if _, err := l.socket(now.Add(pause - 1)); !errors.Is(err, syscall.EPERM) {
			t.Fatalf("before %v: %v, want the last error and no socket", pause, err)
		}
		if s, err := l.socket(now.Add(pause)); err != nil || s == nil {
			t.Fatalf("after %v: %v", pause, err)
		}
	}
}
