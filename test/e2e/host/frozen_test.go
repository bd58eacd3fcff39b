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

	"sipalive/test/lab"
)

// claims records the ARP packets, heard at the router, that claim an address for a MAC.
type claims struct {
	mu    sync.Mutex
	heard []claim
}

type claim struct {
	at        time.Duration
	mac, ip   string
	announces bool // an announcement to all, which the agent sends; answers come from the kernel
	reply     bool // an announcement in the form of a reply
}

// listenClaims listens until the test ends.
func (s *site) listenClaims() *claims {
	s.t.Helper()
	var fd int
	must(s.t, s.Router().Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(lab.NetworkOrder(unix.ETH_P_ARP))); err != nil {
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
			c.heard = append(c.heard, claim{lab.Now(), net.HardwareAddr(b[8:14]).String(), net.IP(b[14:18]).String(), [4]byte(b[14:18]) == [4]byte(b[24:28]), b[7] == 2})
			c.mu.Unlock()
		}
	})
	s.t.Cleanup(func() { close(done); wg.Wait() })
	return c
}

// of counts a machine's claims of a VIP since a moment: all of them, or only
// announcements.
func (c *claims) of(v vipAt, mac string, since time.Duration, all bool) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.heard {
		if h.at >= since && h.ip == v.address && h.mac == mac && (all || h.announces) {
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

// TestFrozen: an agent that stood still for longer than its lease notices that before it
// does anything: no announcement, no action, no address. Behind its fence even its kernel
// must not say a word. Without a fence, the test hears what the agent itself would
// announce.
func TestFrozen(t *testing.T) {
	t.Run("fenced", func(t *testing.T) { frozen(t, "", 2) })
	t.Run("without a fence", func(t *testing.T) { frozen(t, "fence = \"none\"", 1) })
}

func frozen(t *testing.T, top string, times int) {
	marks := filepath.Join(t.TempDir(), "marks")
	must(t, os.Mkdir(marks, 0o777))
	must(t, os.Chmod(marks, 0o777))
	script := filepath.Join(t.TempDir(), "mark")
	must(t, os.WriteFile(script, []byte("#!/bin/sh\necho $1 $SIPALIVE_VIP $SIPALIVE_EPOCH >>"+marks+"/$SIPALIVE_NODE\n"), 0o755))
	action := func(on string) string {
		return fmt.Sprintf("[[vip.action]]\non = %q\nexec = [%q, %q]\n", on, script, on)
	}
	s := start(t, options{top: top, vip: action("prepare") + action("acquire")}, vip1, vip2)
	heard := s.listenClaims()
	mac := s.Node(0).MAC.String()
	done := func() string { // what pbx1's actions recorded, each run
		t.Helper()
		text, err := os.ReadFile(filepath.Join(marks, "pbx1"))
		if !errors.Is(err, os.ErrNotExist) {
			must(t, err)
		}
		return string(text)
	}
	since := lab.Now()
	s.ip(0, "addr del "+vip1.address+"/32 dev eth0") // when the agent puts the address back, it announces it
	for range times {
		before := lab.Now()
		s.await("pbx1's announcement and action", func(context.Context) error { // so this test would notice them
			if heard.of(vip1, mac, since, false) == 0 {
				return errors.New("no announcement yet")
			}
			if acquired := fmt.Sprintf("acquire vip1 %d\n", s.epochs(1)[vip1.name]); !strings.Contains(done(), acquired) {
				return fmt.Errorf("no %q in %q", acquired, done())
			}
			return nil
		})
		must(t, s.Agent(0).Stop())
		s.takenFromPBX1()
		time.Sleep(lease / 2)
		had := done()
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
		if n := heard.of(vip1, mac, resumed, top == ""); n > 0 {
			t.Errorf("%d ARP packets of pbx1 with vip1 as sender after it was thawed", n)
		}
		events, err := s.addresses.Events()
		must(t, err)
		for _, e := range events {
			if e.At >= resumed && e.Addr == vip1.ip() && e.Host == "pbx1" && e.Bound {
				t.Errorf("pbx1 bound vip1 at %v, thawed at %v", e.At, resumed)
			}
		}
		if now := done(); now != had {
			t.Errorf("actions of pbx1: %q, before it was thawed %q", now, had)
		}
		t.Logf("frozen at %v, thawed at %v", before, resumed)
		since = lab.Now()
		s.home(vip1)
	}
}
