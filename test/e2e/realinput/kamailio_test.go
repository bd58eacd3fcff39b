package realinput

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestKamailio runs a whole cluster of Debian's Kamailio, with several processes per
// node.
func TestKamailio(t *testing.T) {
	s := start(t, cluster.Options{PBX: pbxBy(func(h *lab.Host) lab.Spec { return kamailio(t, h) })})
	t.Run("answers", s.kamailioAnswers)
	t.Run("planned move", s.plannedMove)
	t.Run("killed", s.killed)
	t.Run("frozen", s.frozen)
	t.Run("frozen everywhere", s.frozenEverywhere)
	t.Run("thawed everywhere", s.thawedEverywhere)
	t.Run("killed everywhere", s.killedEverywhere)
}

// kamailioAnswers shows why our OPTIONS looks as it does: each other form gets another
// answer, or none.
func (s *site) kamailioAnswers(t *testing.T) {
	target := netip.AddrPortFrom(s.VIPs[0], 5060)
	must(t, s.Phone().Do(func() error {
		out, err := exec.Command(binary, "ping", "sip:"+target.String()).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "200 Keepalive") || !strings.Contains(string(out), s.holder(t, 0)) {
			return fmt.Errorf("sipalive ping: %v: %s", err, out)
		}
		t.Logf("%s", out)
		return nil
	}))
	for _, c := range []struct{ name, user, agent, forwards, want string }{
		{"without user part", "", "sipalive", "70", "SIP/2.0 200 Keepalive"},
		{"with user part", "ping@", "sipalive", "70", "SIP/2.0 404 Not here"},
		{"no hops left", "", "sipalive", "0", "SIP/2.0 483 Too Many Hops"},
		{"scanner", "", "friendly-scanner", "70", ""},
	} {
		if got := ask(t, s.Phone(), target, c.user, c.agent, c.forwards); got != c.want {
			t.Errorf("OPTIONS %s: %q, want %q", c.name, got, c.want)
		}
	}
}

// ask sends one OPTIONS and returns the first line of the answer, "" for none.
func ask(t *testing.T, from *lab.Host, to netip.AddrPort, user, agent, forwards string) string {
	t.Helper()
	var conn net.Conn
	must(t, from.Do(func() (err error) {
		conn, err = net.Dial("udp4", to.String())
		return err
	}))
	defer conn.Close()
	local := conn.LocalAddr()
	_, err := fmt.Fprintf(conn, "OPTIONS sip:%s%v SIP/2.0\r\nVia: SIP/2.0/UDP %v;rport;branch=z9hG4bK%s%s\r\nMax-Forwards: %[5]s\r\n"+
		"From: <sip:ping@%[3]v>;tag=1\r\nTo: <sip:%[2]v>\r\nCall-ID: %[4]s%[5]s\r\nCSeq: 1 OPTIONS\r\nUser-Agent: %[4]s\r\nContent-Length: 0\r\n\r\n",
		user, to, local, agent, forwards)
	must(t, err)
	must(t, conn.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
	b := make([]byte, 2048)
	n, err := conn.Read(b)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b[:n]), "\r\n")
	return line
}

func (s *site) plannedMove(t *testing.T) {
	from, at := s.holder(t, 0), lab.Now()
	to := s.spare(t)
	s.move(t, 0, to)
	s.hears(t, 0, to, at)
	watch(200 * time.Millisecond)
	s.moved(t, 0, at, to)
	s.silent(t, 0, at, 200*time.Millisecond)
	s.silent(t, 1, at, disturbed)
	t.Logf("planned move %s -> %s", from, to)
}

// spare returns a node that holds nothing.
func (s *site) spare(t *testing.T) string {
	t.Helper()
	for _, h := range s.Nodes() {
		if h.Name != s.holder(t, 0) && h.Name != s.holder(t, 1) {
			return h.Name
		}
	}
	t.Fatal("no node is spare")
	return ""
}

// killed sends kill -9 to every Kamailio process of the holder.
func (s *site) killed(t *testing.T) {
	from, to := s.holder(t, 0), s.spare(t)
	at := lab.Now()
	s.PBX(s.Index(from)).Kill()
	s.hears(t, 0, to, at)
	watch(200 * time.Millisecond)
	s.moved(t, 0, at, to)
	s.silent(t, 0, at, 500*time.Millisecond)
	s.silent(t, 1, at, disturbed)
	must(t, s.StartPBX(s.Index(from)))
	s.rests(t)
	s.moved(t, 0, at, to) // and it does not fail back by itself
}

// fallTime is the latest time for a takeover from a frozen PBX: fall x self_interval +
// timeout, and 300 ms (docs/health.md).
const fallTime = 3*200*time.Millisecond + 400*time.Millisecond + 300*time.Millisecond

func (s *site) frozen(t *testing.T) {
	from, to := s.holder(t, 0), s.spare(t)
	at := lab.Now()
	must(t, s.PBX(s.Index(from)).Stop())
	s.hears(t, 0, to, at)
	watch(200 * time.Millisecond)
	s.moved(t, 0, at, to)
	s.silent(t, 0, at, fallTime+time.Second)
	s.silent(t, 1, at, disturbed)
	must(t, s.PBX(s.Index(from)).Cont())
	s.rests(t)
	s.moved(t, 0, at, to)
}

// frozenEverywhere: a sickness of all nodes at once is no reason to move (docs/design.md
// §4.7).
func (s *site) frozenEverywhere(t *testing.T) {
	at := lab.Now()
	for i := range s.Nodes() {
		must(t, s.PBX(i).Stop())
	}
	s.allDown(t)
	watch(time.Second)
	s.stayed(t, at)
}

// thawedEverywhere: neither is its end. The holder is fit again at its first good answer,
// before any other node.
func (s *site) thawedEverywhere(t *testing.T) {
	at := lab.Now()
	for i := range s.Nodes() {
		must(t, s.PBX(i).Cont())
	}
	s.rests(t)
	s.stayed(t, at)
}

// killedEverywhere: nine processes per node do not die at the same moment. So they are
// frozen first: then no PBX answers any more when the first port refuses.
func (s *site) killedEverywhere(t *testing.T) {
	at := lab.Now()
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for i := range s.Nodes() {
			must(t, s.PBX(i).Signal(sig))
		}
	}
	s.allDown(t)
	watch(time.Second)
	for i := range s.Nodes() {
		s.PBX(i).Kill()
		must(t, s.StartPBX(i))
	}
	s.rests(t)
	s.stayed(t, at)
	for v := range s.VIPs {
		s.hears(t, v, s.holder(t, v), lab.Now())
	}
}

func (s *site) allDown(t *testing.T) {
	t.Helper()
	for i := range s.Nodes() {
		for _, h := range s.Nodes() {
			s.awaitNode(t, i, h.Name+" down", h.Name, func(n control.NodeStatus) bool { return n.SIP == "down" && !n.Fit })
		}
	}
}

// TestKamailioWithoutTheVIP: a Kamailio that listens on 0.0.0.0 answers from the node's
// own address, whichever address was asked. The phone hears nothing, so the VIP is not
// verified. But it never was verified, so it stays, and is not passed on from node to
// node (docs/design.md §5.5).
func TestKamailioWithoutTheVIP(t *testing.T) {
	s := launch(t, cluster.Options{VIPs: 1, TOML: swift + "[sip]\nverify_timeout = \"1s\"\n",
		PBX: pbxBy(func(h *lab.Host) lab.Spec { return kamailio(t, h, netip.IPv4Unspecified()) })})
	for i, h := range s.Nodes() {
		s.awaitNode(t, i, h.Name+" fit", h.Name, func(n control.NodeStatus) bool { return n.Fit })
	}
	s.await(t, "vip1 held", func(context.Context) error {
		if s.holder(t, 0) == "" {
			return errors.New("nobody has it")
		}
		return nil
	})
	holder := s.holder(t, 0)
	e := s.takeover(t, s.Index(holder), 0)
	if !strings.Contains(e.Outcome, "does not answer SIP") {
		t.Errorf("outcome of the takeover: %q", e.Outcome)
	}
	at := lab.Now()
	watch(2500 * time.Millisecond) // more than two verify_timeouts
	s.stayed(t, at)
	var st control.Status
	must(t, json.Unmarshal([]byte(s.command(t, s.Index(holder), "status", "--json")), &st))
	if v := st.VIPs[0]; v.Holder != holder || v.State != "held" || v.Verified {
		t.Errorf("status: %+v, want it held by %s and not verified", v, holder)
	}
	if r := s.saw(0, at); r.Answered != 0 {
		t.Errorf("the phone heard %d answers from a PBX that does not serve the VIP: %v", r.Answered, r)
	}
}
