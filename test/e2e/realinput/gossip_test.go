package realinput

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// garbageCount is how many datagrams each sender of garbage sends. All are counted,
// except those that found the socket's buffer full.
const garbageCount = 20_000

// TestGarbage: input that is no message of the cluster does no harm, wherever it comes
// from.
func TestGarbage(t *testing.T) {
	s := start(t, cluster.Options{})
	before := s.memory(t)
	at := lab.Now()
	victim := netip.AddrPortFrom(s.Node(0).Addr, gossipPort)

	s.counts(t, 0, "datagrams from a stranger", garbageCount/2, func() {
		s.spray(t, s.Router(), victim)
	}, "member_wrong_source")
	s.counts(t, 0, "datagrams from a node's address", garbageCount/2, func() {
		s.spray(t, s.Node(2), victim)
	}, "member_garbage", "member_wrong_label", "member_wrong_key")
	forge := s.forge(t)
	s.counts(t, 0, "datagrams with a node's address forged", 1000, func() {
		for i := range 2000 {
			must(t, forge.udp(netip.AddrPortFrom(s.Node(1).Addr, gossipPort), victim, garbage(i)))
			pace(i)
		}
	}, "member_garbage", "member_wrong_label", "member_wrong_key")
	for i := range 2000 { // TCP connections that are never completed
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, byte(2 + i%200), byte(i)}), uint16(1024+i))
		must(t, forge.syn(src, victim))
		pace(i)
	}
	s.counts(t, 0, "streams from a stranger", 100, func() {
		closeAll(s.streams(t, s.Router(), victim, 100, true))
	}, "member_streams_refused")
	s.counts(t, 0, "streams of garbage from a node's address", 40, func() {
		closeAll(s.streams(t, s.Node(2), victim, 60, true))
	}, "member_streams_refused")
	idle := s.streams(t, s.Node(2), victim, 200, false) // more than the agent keeps open
	watch(time.Second)
	s.nobodyMoved(t, at)

	at = lab.Now()
	to := s.spare(t)
	s.move(t, 0, to) // while the idle ones are still open
	s.hears(t, 0, to, at)
	s.silent(t, 0, at, 200*time.Millisecond)
	closeAll(idle)
	s.rests(t)
	s.bounded(t, before)
}

// pace lets out 20 packets per millisecond.
func pace(i int) {
	if i%20 == 19 {
		time.Sleep(time.Millisecond)
	}
}

func (s *site) spray(t *testing.T, from *lab.Host, to netip.AddrPort) {
	t.Helper()
	var conn net.Conn
	must(t, from.Do(func() (err error) {
		conn, err = net.Dial("udp4", to.String())
		return err
	}))
	defer conn.Close()
	for i := range garbageCount {
		_, _ = conn.Write(garbage(i)) // an error would come from ICMP
		pace(i)
	}
}

// garbage returns the i-th of many datagrams: nothing, noise, or something that begins
// like a packet of this cluster ("demo") or of another.
func garbage(i int) []byte {
	noise := make([]byte, i%1400)
	_, _ = rand.Read(noise)
	switch i % 8 {
	case 0:
		return noise
	case 1:
		return append([]byte("\xf4\x04demo\x01"), noise...)
	case 2:
		return append([]byte("\xf4\x05other\x01"), noise...)
	case 3:
		return append([]byte("\xf4\xffdemo\x01"), noise...)
	case 4:
		return append([]byte("\xf4\x04demo\x00"), noise...) // an encryption version that makes memberlist panic
	case 5:
		return []byte("\xf4")
	case 6:
		return []byte("OPTIONS sip:gossip SIP/2.0\r\n\r\n")
	}
	return nil
}

// streams opens TCP connections, and sends garbage on them if talk is true.
func (s *site) streams(t *testing.T, from *lab.Host, to netip.AddrPort, count int, talk bool) (conns []net.Conn) {
	t.Helper()
	must(t, from.Do(func() error {
		for i := range count {
			conn, err := net.DialTimeout("tcp4", to.String(), 5*time.Second)
			if err != nil {
				return fmt.Errorf("stream %d: %w", i, err)
			}
			conns = append(conns, conn)
			if talk {
				_, _ = conn.Write(append(garbage(8*i+i%5), make([]byte, 100)...))
			}
		}
		return nil
	}))
	return conns
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// TestForeignClusters replaces the spare's agent by one with another key, then by one
// with another label. Both know the same nodes and VIPs.
func TestForeignClusters(t *testing.T) {
	s := start(t, cluster.Options{})
	spare := s.Index(s.spare(t))
	witness := (spare + 1) % 3
	at := lab.Now()
	s.Agent(spare).Kill()
	text, err := os.ReadFile(s.Config)
	must(t, err)
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	must(t, os.WriteFile(key, []byte(s.keygen(t)), 0o600))
	keyLine := ""
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "key_file") {
			keyLine = line
		}
	}
	for _, c := range []struct{ counter, old, new string }{
		{"member_wrong_key", keyLine, fmt.Sprintf("key_file = %q\n", key)},
		{"member_wrong_label", `cluster = "demo"`, `cluster = "omed"`},
	} {
		file := filepath.Join(dir, c.counter+".toml")
		must(t, os.WriteFile(file, []byte(strings.Replace(string(text), c.old, c.new, 1)), 0o644))
		s.counts(t, witness, "a foreign agent", 10, func() {
			foreign, err := s.Node(spare).Start(ahead(lab.Spec{Name: "foreign", Path: binary, Args: []string{"run", "-c", file, "--run-dir", filepath.Join(dir, c.counter)}}))
			must(t, err)
			watch(2 * time.Second) // two leases: time enough to take what it could
			if strings.Contains(foreign.Output(), "err=") {
				t.Logf("the foreign agent says: %s", foreign.Output())
			}
			foreign.Kill()
		}, c.counter)
	}
	s.nobodyMoved(t, at)
	must(t, s.StartAgent(spare))
	s.awaitNode(t, witness, "the spare back", s.Node(spare).Name, func(n control.NodeStatus) bool { return n.Alive && n.Fit })
	s.rests(t)
	s.nobodyMoved(t, at)
}

func (s *site) keygen(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(binary, "keygen").Output()
	must(t, err)
	return string(out)
}
