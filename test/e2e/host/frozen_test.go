package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// claims listens, at the router, for ARP that says a VIP is at some MAC.
type claims struct {
	mu    sync.Mutex
	heard []claim
}

type claim struct {
	at  time.Duration
	mac string
	ip  string
}

// listenClaims listens until the test ends.
func (s *site) listenClaims() *claims {
	s.t.Helper()
	var fd int
	must(s.t, s.Router().Do(func() (err error) {
		const arp = 0x0806
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(arp>>8|arp&0xff<<8)); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
	}))
	c, done := &claims{}, make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer unix.Close(fd)
		b := make([]byte, 1500)
		for {
			n, _, err := unix.Recvfrom(fd, b, 0)
			select {
			case <-done:
				return
			default:
			}
			if err != nil || n < 28 { // nothing for a while, or no ARP for IPv4
				continue
			}
			c.mu.Lock()
			c.heard = append(c.heard, claim{lab.Now(), net.HardwareAddr(b[8:14]).String(), net.IP(b[14:18]).String()})
			c.mu.Unlock()
		}
	})
	s.t.Cleanup(func() { close(done); wg.Wait() })
	return c
}

func (c *claims) of(v vipAt, mac string, since time.Duration) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.heard {
		if h.at >= since && h.ip == v.address && h.mac == mac {
			n++
		}
	}
	return n
}

// takenFromPBX1 waits until another node holds vip1.
func (s *site) takenFromPBX1() {
	s.t.Helper()
	s.await("vip1 elsewhere", func(ctx context.Context) error {
		h, err := s.holder(ctx, 1, vip1)
		if err == nil && (h == "pbx1" || h == "") {
			err = fmt.Errorf("it is at %q", h)
		}
		return err
	})
}

// TestFrozen: an agent that stood still for longer than its lease finds that
// out before it does anything: no announcement, no action, no address.
func TestFrozen(t *testing.T) {
	marks := filepath.Join(t.TempDir(), "marks")
	must(t, os.Mkdir(marks, 0o777))
	must(t, os.Chmod(marks, 0o777))
	script := filepath.Join(t.TempDir(), "mark")
	must(t, os.WriteFile(script, []byte("#!/bin/sh\n: > "+marks+"/$SIPALIVE_NODE-$1-$SIPALIVE_EPOCH\n"), 0o755))
	action := func(on string) string {
		return fmt.Sprintf("[[vip.action]]\non = %q\nexec = [%q, %q]\n", on, script, on)
	}
	s := start(t, action("prepare")+action("acquire"), nil, vip1, vip2)
	heard := s.listenClaims()
	mac := s.Node(0).MAC.String()
	for range 3 {
		before := lab.Now()
		s.await("an announcement of pbx1", func(context.Context) error { // the listener hears
			if heard.of(vip1, mac, 0) == 0 {
				s.ip(0, "neigh flush all")
				return errors.New("none yet")
			}
			return nil
		})
		must(t, s.Agent(0).Stop())
		s.takenFromPBX1()
		time.Sleep(lease / 2)
		had := strings.Join(names(t, marks, "pbx1-"), " ")
		resumed := lab.Now()
		must(t, s.Agent(0).Cont())
		s.await("pbx1 knows", func(ctx context.Context) error {
			h, err := s.holder(ctx, 0, vip1)
			if err == nil && (h == "pbx1" || h == "") {
				err = fmt.Errorf("it says %q", h)
			}
			return err
		})
		s.await("pbx1 without the address", func(context.Context) error {
			for _, h := range s.boundOn(vip1) {
				if h == "pbx1" {
					return errors.New("still bound")
				}
			}
			return nil
		})
		time.Sleep(lease)
		if n := heard.of(vip1, mac, resumed); n > 0 {
			t.Errorf("%d ARP packets of pbx1 with vip1 as sender after it was thawed", n)
		}
		events, err := s.addresses.Events()
		must(t, err)
		for _, e := range events {
			if e.At >= resumed && e.Addr == vip1.ip() && e.Host == "pbx1" && e.Bound {
				t.Errorf("pbx1 bound vip1 at %v, thawed at %v", e.At, resumed)
			}
		}
		if now := strings.Join(names(t, marks, "pbx1-"), " "); now != had {
			t.Errorf("actions of pbx1: %s, before it was thawed %s", now, had)
		}
		t.Logf("frozen at %v, thawed at %v", before, resumed)
		s.home(vip1)
		s.await("pbx1's actions", func(context.Context) error {
			if len(names(t, marks, "pbx1-acquire-")) == 0 {
				return errors.New("none: nothing would be seen here")
			}
			return nil
		})
	}
}

// TestFrozenAmidActions: an agent that stood still while an acquire action ran
// starts no further one once its lease is over, though the action has ended well.
func TestFrozenAmidActions(t *testing.T) {
	marks := filepath.Join(t.TempDir(), "marks")
	must(t, os.Mkdir(marks, 0o777))
	must(t, os.Chmod(marks, 0o777))
	gate, script := filepath.Join(marks, "gate"), filepath.Join(t.TempDir(), "mark")
	must(t, os.WriteFile(script, []byte("#!/bin/sh\n: > "+marks+"/$SIPALIVE_NODE-$1-$SIPALIVE_EPOCH\n"+
		"while [ $1 = first ] && [ $SIPALIVE_NODE = pbx1 ] && [ -e "+gate+" ]; do sleep 0.02; done\n"+
		": > "+marks+"/$SIPALIVE_NODE-$1-$SIPALIVE_EPOCH-end\n"), 0o755))
	action := func(word string) string {
		return fmt.Sprintf("[[vip.action]]\non = \"acquire\"\ntimeout = \"60s\"\nexec = [%q, %q]\n", script, word)
	}
	s := start(t, action("first")+action("second"), nil, vip1, vip2)
	mark := func(what string) {
		t.Helper()
		s.await(what, func(context.Context) error {
			if _, err := os.Stat(filepath.Join(marks, what)); err != nil {
				return errors.New("not yet")
			}
			return nil
		})
	}
	move := func(node string) uint64 {
		t.Helper()
		ctx, cancel := cluster.Deadline(patience)
		defer cancel()
		if h, err := s.holder(ctx, 1, vip1); err != nil || h != node {
			must(t, err)
			_, err = s.Client(1).Do(ctx, control.Command{Kind: control.Move, VIP: "vip1", Node: node})
			must(t, err)
		}
		return s.epochs(1)["vip1"]
	}
	for range 2 {
		mark(fmt.Sprintf("pbx1-second-%d-end", s.epochs(1)["vip1"])) // or the gate would hold up that chain
		move("pbx2")
		must(t, os.WriteFile(gate, nil, 0o644))
		epoch := move("pbx1")
		mark(fmt.Sprintf("pbx1-first-%d", epoch))
		must(t, s.Agent(0).Stop())
		s.takenFromPBX1()
		must(t, os.Remove(gate))
		mark(fmt.Sprintf("pbx1-first-%d-end", epoch))
		must(t, s.Agent(0).Cont())
		s.await("the end of pbx1's chain", func(context.Context) error {
			skipped := fmt.Sprintf("vip=vip1 epoch=%d reason=acquire err=\"skipped: ", epoch)
			if !strings.Contains(s.Agent(0).Output(), skipped) {
				return errors.New("its log does not say that an action was skipped")
			}
			return nil
		})
		if got := names(t, marks, fmt.Sprintf("pbx1-second-%d", epoch)); len(got) > 0 {
			t.Errorf("%q: started for a lease that was over", got)
		}
		s.home(vip1)
	}
}

func names(t *testing.T, dir, prefix string) (found []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range all {
		if strings.HasPrefix(e.Name(), prefix) {
			found = append(found, e.Name())
		}
	}
	return found
}
