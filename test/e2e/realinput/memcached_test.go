package realinput

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestMemcached: a takeover flushes every memcached that is alive. Events report a dead
// one and a frozen one; those cost their timeouts and delay nothing else.
func TestMemcached(t *testing.T) {
	const timeout = time.Second
	subnet := func(host byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, host}), 11211)
	}
	alive, frozen, dead := []netip.AddrPort{subnet(11), subnet(12)}, subnet(13), subnet(1)
	s := start(t, cluster.Options{VIPs: 1, VIP: func(int) string {
		return fmt.Sprintf("[[vip.action]]\non = \"acquire\"\nmemcached = [%q, %q, %q, %q]\ntimeout = %q\n", alive[0], dead, alive[1], frozen, timeout)
	}})
	var servers []*lab.Process
	for i, h := range s.Nodes() {
		p, err := h.Start(lab.Spec{Path: "memcached", Args: []string{"-u", "nobody", "-l", h.Addr.String(), "-p", "11211", "-U", "0", "-m", "8", "-t", "1"}})
		must(t, err)
		servers = append(servers, p)
		addr := netip.AddrPortFrom(h.Addr, 11211)
		s.await(t, h.Name+"'s memcached", func(context.Context) error { _, err := memcache(h, addr, "version"); return err })
		if got := s.cache(t, i, "set calls 0 0 5\r\nstale"); got != "STORED" {
			t.Fatalf("set on %s: %q", h.Name, got)
		}
	}
	must(t, servers[2].Stop())

	from, to := s.holder(t, 0), "pbx2"
	if from == to {
		to = "pbx1"
	}
	at := lab.Now()
	s.move(t, 0, to)
	s.hears(t, 0, to, at)
	s.silent(t, 0, at, 200*time.Millisecond) // whatever happens to the caches
	e := s.takeover(t, s.Index(to), 0)
	m := mark(t, e, "memcached")
	for i := range alive {
		if got := s.cache(t, i, "get calls"); got != "END" {
			t.Errorf("%s after the takeover: %q, want the key gone", alive[i], got)
		}
		if !strings.Contains(m.Output, alive[i].String()) {
			t.Errorf("events name %q as flushed, %s is missing", m.Output, alive[i])
		}
	}
	if m.OK == nil || *m.OK || !strings.Contains(m.Err, dead.String()+": connect: connection refused") || !strings.Contains(m.Err, frozen.String()) {
		t.Errorf("events say %+v, want %s refused and %s without answer", m, dead, frozen)
	}
	if took := time.Duration(m.Took); took < timeout || took > timeout+time.Second {
		t.Errorf("the action took %v, want its timeout of %v for the frozen server", took, timeout)
	}
	if e.Outcome != "done" {
		t.Errorf("outcome %q, want done: on_failure is continue", e.Outcome)
	}
	t.Logf("%+v", m)
	must(t, servers[2].Cont())
	if got := s.cache(t, 2, "get calls"); got != "END" && got != "VALUE calls 0 5" {
		t.Errorf("the thawed memcached says %q", got)
	}
}

// cache sends one command to a node's memcached and returns the first line of its answer.
func (s *site) cache(t *testing.T, node int, what string) string {
	t.Helper()
	got, err := memcache(s.Node(node), netip.AddrPortFrom(s.Node(node).Addr, 11211), what)
	must(t, err)
	return got
}

func memcache(h *lab.Host, addr netip.AddrPort, what string) (line string, err error) {
	var conn net.Conn
	err = h.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp4", addr.String(), time.Second)
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(conn, "%s\r\n", what); err != nil {
		return "", err
	}
	line, err = bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}
