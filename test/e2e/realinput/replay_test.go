package realinput

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestReplay records what the nodes send each other while VIPs move about. Later it sends
// that again: in the same run, after every agent has been restarted, and after nodes have
// been rebooted.
func TestReplay(t *testing.T) {
	s := start(t, cluster.Options{})
	r := s.record(t)
	for _, to := range []string{"pbx3", "pbx1", "pbx2", "pbx3"} {
		s.move(t, 0, to)
		s.move(t, 1, to)
	}
	s.move(t, 0, "pbx1")
	s.move(t, 1, "pbx2")
	s.hears(t, 0, "pbx1", lab.Now())
	s.hears(t, 1, "pbx2", lab.Now())
	watch(time.Second) // and heartbeats
	tape := r.end()
	t.Logf("%d datagrams recorded", len(tape))
	if len(tape) < 100 {
		t.Fatal("too few to prove anything")
	}
	before := s.memory(t)
	forge := s.forge(t)

	at := lab.Now()
	s.allCount(t, "replayed in the same run", uint64(len(tape)/10), func() { s.play(t, forge, tape) }, "member_replayed")
	s.allCount(t, "told to another node", uint64(len(tape)/10), func() { s.play(t, forge, s.redirected(tape)) }, "member_misdirected")
	s.allCount(t, "told by another node", uint64(len(tape)/10), func() { s.play(t, forge, s.usurped(tape)) }, "member_wrong_source")
	s.allCount(t, "sent back to its sender", uint64(len(tape)/10), func() { s.play(t, forge, reflected(tape)) }, "member_self")
	s.nobodyMoved(t, at)

	// A restarted agent goes on under its lease, so nothing moves then either.
	at = lab.Now()
	for i := range s.Nodes() {
		s.Agent(i).Kill()
		must(t, s.StartAgent(i))
		s.rests(t)
	}
	s.allCount(t, "replayed after a restart", uint64(len(tape)/10), func() { s.play(t, forge, tape) }, "member_replayed", "member_unproven")
	s.nobodyMoved(t, at)

	for i := range s.Nodes() {
		s.reboot(t, i)
	}
	at = lab.Now()
	s.allCount(t, "replayed after a reboot", uint64(len(tape)/10), func() { s.play(t, forge, tape) }, "member_stale_instance", "member_unproven")
	watch(time.Second)
	s.nobodyMoved(t, at)
	s.rests(t)
	s.bounded(t, before)
}

// reboot plays a node that loses its power and comes back. The agent, the runtime
// directory and the VIPs are gone; the state on disk is not.
func (s *site) reboot(t *testing.T, i int) {
	t.Helper()
	s.Agent(i).Kill()
	for v, addr := range s.VIPs {
		if s.holder(t, v) == s.Node(i).Name {
			must(t, s.Node(i).Unbind(addr))
		}
	}
	entries, err := os.ReadDir(s.RunDir(i))
	must(t, err)
	for _, e := range entries {
		if e.Name() != "state" {
			must(t, os.RemoveAll(filepath.Join(s.RunDir(i), e.Name())))
		}
	}
	must(t, s.StartAgent(i))
	s.rests(t)
}

// play sends a tape to its original receivers, first in order and then backwards.
func (s *site) play(t *testing.T, f *forger, tape []datagram) {
	t.Helper()
	for i, d := range tape {
		must(t, f.udp(d.src, d.dst, d.payload))
		pace(i)
	}
	for i, d := range slices.Backward(tape) {
		must(t, f.udp(d.src, d.dst, d.payload))
		pace(i)
	}
}

// third returns the node that is neither sender nor receiver.
func (s *site) third(d datagram) *lab.Host {
	for _, h := range s.Nodes() {
		if h.Addr != d.src.Addr() && h.Addr != d.dst.Addr() {
			return h
		}
	}
	return nil
}

// redirected sends every datagram to the node that it was not meant for.
func (s *site) redirected(tape []datagram) (out []datagram) {
	for _, d := range tape {
		out = append(out, datagram{d.src, at(s.third(d)), d.payload})
	}
	return out
}

// usurped makes every datagram come from the node that did not send it.
func (s *site) usurped(tape []datagram) (out []datagram) {
	for _, d := range tape {
		out = append(out, datagram{at(s.third(d)), d.dst, d.payload})
	}
	return out
}

// reflected sends every datagram back to its sender.
func reflected(tape []datagram) (out []datagram) {
	for _, d := range tape {
		out = append(out, datagram{d.dst, d.src, d.payload})
	}
	return out
}

func at(h *lab.Host) netip.AddrPort { return netip.AddrPortFrom(h.Addr, gossipPort) }
