package agent

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"sipalive/elect"
	"sipalive/sipcheck"
)

// TestIPv6NodesAreProbed: [[sip.target]] on nodes with IPv6 addresses, over UDP and TCP.
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
