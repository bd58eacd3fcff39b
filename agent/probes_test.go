package agent

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/elect"
	"sipalive/sipcheck"
)

// TestIPv6NodesAreProbed: nodes with IPv6 addresses are probed at [[sip.target]], over
// UDP and TCP.
func TestIPv6NodesAreProbed(t *testing.T) {
	udp, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	_, port, _ := net.SplitHostPort(udp.LocalAddr().String())
	tcp, err := net.Listen("tcp6", "[::1]:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	go func() {
		for request := make([]byte, 2000); ; {
			n, from, err := udp.ReadFrom(request)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(ok(request[:n]), from)
		}
	}()
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			request := make([]byte, 2000)
			if n, err := conn.Read(request); err == nil {
				_, _ = conn.Write(ok(request[:n]))
			}
			_ = conn.Close()
		}
	}()

	r := newRecording(t)
	text := strings.NewReplacer("192.0.2.11", "2001:db8::11", "192.0.2.12", "2001:db8::12", "192.0.2.13", "::1").Replace(home)
	c := parse(t, text+"[sip]\ntimeout = \"10s\"\n[[sip.target]]\nname = \"phones\"\nuri = \"udp:"+port+"\"\n[[sip.target]]\nname = \"trunks\"\nuri = \"tcp:"+port+"\"\n")
	r.a.inForce.Store(&settled{config: c, names: newNames(c, nil)})
	r.a.Self = c.Node("pbx3")
	r.a.probes = newProbes(r.a)
	if got := r.a.probes.of("pbx1")[0].Target().Address.String(); got != "[2001:db8::11]:"+port {
		t.Errorf("pbx1 is asked at %s", got)
	}
	r.a.events = make(chan elect.Event, 16)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, p := range r.a.probes.of("pbx3") {
		go func() { _ = p.Run(ctx) }()
	}
	for end := time.After(20 * time.Second); ; {
		select {
		case ev := <-r.a.events:
			if h, is := ev.(elect.Health); is && h.Node == "pbx3" && h.SIP == elect.SIPUp {
				for _, p := range r.a.probes.of("pbx3") {
					if got := p.Report(); got.Verdict != sipcheck.Up {
						t.Errorf("up, but %+v", got)
					}
				}
				return
			}
		case <-end:
			t.Fatalf("not up: %+v", targetsStatus(r.a.probes.of("pbx3")))
		}
	}
}

// TestOwnPauseIsNoSickness: a FreeSWITCH that `drain --wait-calls` has paused answers
// 503, which is listed. Its own node knows why. What the others say alone is no verdict.
func TestOwnPauseIsNoSickness(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 13)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for request := make([]byte, 2000); ; {
			n, from, err := server.ReadFrom(request)
			if err != nil {
				return
			}
			busy := bytes.Replace(ok(request[:n]), []byte("200 OK"), []byte("503 System Paused"), 1)
			_, _ = server.WriteTo(busy, from)
		}
	}()
	_, port, _ := net.SplitHostPort(server.LocalAddr().String())
	text := strings.NewReplacer("192.0.2.11", "127.0.0.11", "192.0.2.12", "127.0.0.12", "192.0.2.13", "127.0.0.13").Replace(home) +
		"[sip]\nself_interval = \"50ms\"\npeer_interval = \"50ms\"\ntimeout = \"10s\"\nunhealthy_codes = [503]\n[[sip.target]]\nname = \"phones\"\nuri = \"udp:" + port + "\"\n"
	asks := func(from string) (*Agent, *sipcheck.Prober) {
		r := newRecording(t)
		c := parse(t, text)
		r.a.inForce.Store(&settled{config: c, names: newNames(c, nil)})
		r.a.Self, r.a.events = c.Node(from), make(chan elect.Event, 1000)
		if r.a.Directory, err = OpenDirectory(t.TempDir(), t.TempDir()); err != nil {
			t.Fatal(err)
		}
		r.a.probes = newProbes(r.a)
		return r.a, r.a.probes.of("pbx3")[0]
	}
	run := func(p *sipcheck.Prober) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-ended })
	}
	next := func(a *Agent) elect.SIPState {
		t.Helper()
		select {
		case ev := <-a.events:
			return ev.(elect.Health).SIP
		case <-time.After(20 * time.Second):
			t.Fatal("no verdict")
			return 0
		}
	}
	answered := func(p *sipcheck.Prober, n uint64) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); p.Stats().Answered < n; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%+v", p.Stats())
			}
		}
	}

	a, p := asks("pbx3")
	mark := filepath.Join(a.Directory.Run(), pausedName)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run(p)
	if s := next(a); s != elect.SIPUp {
		t.Errorf("paused by its own agent: %s", s)
	}
	answered(p, 10)
	select {
	case ev := <-a.events:
		t.Errorf("%+v of a PBX paused by its own agent", ev)
	default:
	}
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	if s := next(a); s != elect.SIPSuspect {
		t.Errorf("a listed code first says %s", s)
	}
	if s := next(a); s != elect.SIPSilent {
		t.Errorf("a listed code, and no pause: %s", s)
	}

	a, p = asks("pbx1")
	run(p)
	answered(p, 10)
	for len(a.events) > 0 {
		if s := next(a); s.Down() {
			t.Errorf("another node says %s alone", s)
		}
	}
	if got := p.Report().Verdict; got != sipcheck.Unhealthy {
		t.Errorf("another node's prober says %s", got)
	}
}

// TestHesitationIsToldBeforeALongTimeout: the others begin to ask while this node still
// waits. Otherwise their own timeout would end last.
func TestHesitationIsToldBeforeALongTimeout(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 13)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		request := make([]byte, 2000)
		if n, from, err := server.ReadFrom(request); err == nil {
			_, _ = server.WriteTo(ok(request[:n]), from) // and then the server hangs
		}
	}()
	r := newRecording(t)
	_, port, _ := net.SplitHostPort(server.LocalAddr().String())
	c := parse(t, strings.ReplaceAll(home, "192.0.2.13", "127.0.0.13")+
		"[sip]\ntimeout = \"10s\"\n[[sip.target]]\nname = \"phones\"\nuri = \"udp:"+port+"\"\n")
	r.a.inForce.Store(&settled{config: c, names: newNames(c, nil)})
	r.a.Self, r.a.events = c.Node("pbx3"), make(chan elect.Event, 1000)
	r.a.probes = newProbes(r.a)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.a.probes.of("pbx3")[0].Run(ctx) }()
	defer func() { cancel(); <-ended }()
	for _, want := range []elect.SIPState{elect.SIPUp, elect.SIPSuspect} {
		select {
		case ev := <-r.a.events:
			if h := ev.(elect.Health); h.SIP != want {
				t.Fatalf("%+v, want %s", h, want)
			}
		case <-time.After(8 * time.Second):
			t.Fatalf("not %s within 8 s, with a timeout of 10 s", want)
		}
	}
}

// TestProbesFollow: probers that stay the same go on. A changed prober of the same server
// begins with the old one's verdict. A new server counts as up until its state is known.
// A prober that has been removed tells nothing any more.
func TestProbesFollow(t *testing.T) {
	r := newRecording(t)
	r.a.events = make(chan elect.Event, 16)
	p := newProbes(r.a)
	r.a.probes = p
	before := p.all()
	if len(before) != 3 {
		t.Fatalf("%d probers, want one per node", len(before))
	}
	for _, b := range before {
		p.verdictOf(b.Prober, verdict{state: elect.SIPUp})
		<-r.a.events
	}
	two := "[sip]\npeer_interval = \"2s\"\n[[sip.target]]\nname = \"main\"\nuri = \"udp:5060\"\n[[sip.target]]\nname = \"more\"\nuri = \"udp:5070\"\n"
	p.reconfigure(parse(t, strings.Replace(home, "[[role]]", two+"[[role]]", 1)), nil)
	after := p.all()
	if len(after) != 6 {
		t.Fatalf("%d probers, want two per node", len(after))
	}
	for _, a := range after {
		own := a.target.Node == "pbx3" && a.target.Name == "main"
		if kept := a.Prober == before[2].Prober; kept != own {
			t.Errorf("%s of %s: kept %t", a.target.Name, a.target.Node, kept)
		}
	}
	for _, n := range []elect.Node{"pbx1", "pbx2", "pbx3"} {
		if s := p.stateOf(n).state; s != elect.SIPUp {
			t.Errorf("%s is %s, and was up", n, s)
		}
	}
	p.verdictOf(before[0].Prober, verdict{state: elect.SIPRefused}) // it has been replaced
	p.verdictOf(after[0].Prober, verdict{})                         // no verdict yet
	select {
	case ev := <-r.a.events:
		t.Errorf("told %+v", ev)
	default:
	}
	p.verdictOf(after[1].Prober, verdict{elect.SIPRefused, 5, 6})
	if ev := <-r.a.events; ev != (elect.Health{Node: "pbx1", SIP: elect.SIPRefused, Since: 5, Last: 6}) {
		t.Errorf("told %+v", ev)
	}
}
