package agent

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sipalive/elect"
	"sipalive/platform"
)

// faked is a watch that ends as the test wants.
type faked struct {
	done chan struct{}
	err  error
}

func (f *faked) Close()                {}
func (f *faked) Done() <-chan struct{} { return f.done }
func (f *faked) Err() error            { return f.err }

// ok returns an answer to a probe, so that the prober does not repeat it.
func ok(request []byte) []byte {
	answer := "SIP/2.0 200 OK\r\n"
	for line := range strings.Lines(string(request)) {
		for _, copied := range []string{"Via:", "From:", "To:", "Call-ID:", "CSeq:"} {
			if strings.HasPrefix(line, copied) {
				answer += line
			}
		}
	}
	return []byte(answer + "Content-Length: 0\r\n\r\n")
}

// TestSocketWatchComesBack: a kernel without notices is asked again, and a watch that
// fails is opened again. Each time the targets are probed, for sockets that died unseen.
// What is missing is warned of once, and the status shows it while it lasts.
func TestSocketWatchComesBack(t *testing.T) {
	r := newRecording(t)
	pbx, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pbx.Close()
	_, port, _ := net.SplitHostPort(pbx.LocalAddr().String())
	text := strings.Replace(home, "192.0.2.13", "127.0.0.1", 1) + "[sip]\ntimeout = \"10s\"\nself_interval = \"1h\"\n[[sip.target]]\nuri = \"udp:" + port + "\"\n"
	c := parse(t, text)
	r.a.inForce.Store(&settled{config: c, names: newNames(c, nil)})
	r.a.Self = c.Node("pbx3")
	r.a.ended = make(chan struct{})
	close(r.a.ended) // there is no loop to take verdicts
	r.a.probes, r.a.vipTargets = newProbes(r.a), newVIPTargets(r.a)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opened := make(chan *faked)
	var fails atomic.Int32
	s := newSockets(r.a)
	s.again, s.rarely = time.Millisecond, 4*time.Millisecond
	s.open = func(ctx context.Context, _ []uint8, ports []uint16, _ func(platform.SocketDestroyed) bool, _ func(platform.SocketDestroyed)) (socketWatch, error) {
		if len(ports) != 1 {
			t.Errorf("ports %v", ports)
		}
		if fails.Add(1) <= 5 {
			return nil, errors.New("no such notices")
		}
		w := &faked{done: make(chan struct{}), err: errors.New("out of memory")}
		select {
		case opened <- w:
			return w, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	asked := func(what string) {
		t.Helper()
		_ = pbx.SetReadDeadline(time.Now().Add(20 * time.Second))
		probe := make([]byte, 2000)
		n, from, err := pbx.ReadFrom(probe)
		if err != nil {
			t.Fatalf("%s: no probe: %v", what, err)
		}
		_, _ = pbx.WriteTo(ok(probe[:n]), from)
	}
	prober := r.a.probes.of(elect.Node("pbx3"))[0]
	go func() { _ = prober.Run(ctx) }()
	asked("the start")

	first := <-opened
	if got := s.unwatched(); got != "" && got != "no such notices" {
		t.Errorf("unwatched: %q", got)
	}
	asked("a watch at last")
	close(first.done)
	second := <-opened
	asked("a watch again")
	s.reconfigure() // a reload
	third := <-opened
	if got := s.unwatched(); got != "" {
		t.Errorf("watching, and unwatched: %q", got)
	}
	if third == second {
		t.Error("a reload kept the watch")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	r.settle()
	for _, words := range []string{"no such notices", "out of memory"} {
		if n := strings.Count(r.log.String(), words); n != 1 {
			t.Errorf("%q said %d times:\n%s", words, n, r.log)
		}
	}
}
