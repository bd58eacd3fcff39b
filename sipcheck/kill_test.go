package sipcheck_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/platform"
	"sipalive/sipcheck"
)

// TestKilledServerIsRefusedWithinMilliseconds kills a SIP server process with -9. The
// kernel's notice about its socket makes the prober ask, and the port refuses. Interval
// and timeout are so long that only the notice can have caused the probe.
func TestKilledServerIsRefusedWithinMilliseconds(t *testing.T) {
	for _, c := range []struct{ name, listen, ask string }{
		{"own address", "127.0.0.1:0", "127.0.0.1"},
		{"all IPv4 addresses", "0.0.0.0:0", "127.0.0.1"},
		{"all addresses, dual stack", "[::]:0", "127.0.0.1"},
		{"IPv6", "[::1]:0", "::1"},
		{"TCP", "tcp:127.0.0.1:0", "127.0.0.1"},
		{"TCP, dual stack", "tcp:[::]:0", "127.0.0.1"},
		{"TCP, IPv6", "tcp:[::1]:0", "::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var took []time.Duration
			for range 11 {
				took = append(took, killOnce(t, c.listen, netip.MustParseAddr(c.ask)))
			}
			slices.Sort(took)
			median := took[len(took)/2]
			t.Logf("kill -9 to refused: median %v, min %v, max %v", median, took[0], took[len(took)-1])
			if median > 100*time.Millisecond {
				t.Fatalf("median %v, want at most 100 ms", median)
			}
		})
	}
}

func killOnce(t *testing.T, listen string, ask netip.Addr) time.Duration {
	t.Helper()
	child, port := startServer(t, listen)
	at, by, protocol := netip.AddrPortFrom(ask, port), sipcheck.UDP, uint8(unix.IPPROTO_UDP)
	if strings.HasPrefix(listen, "tcp:") {
		by, protocol = sipcheck.TCP, unix.IPPROTO_TCP
	}
	results := make(chan sipcheck.Result, 100)
	p := sipcheck.NewProber(sipcheck.Target{Node: "pbx1", Name: "main", Address: at, Transport: by,
		Interval: time.Hour, Timeout: time.Hour}, sipcheck.Options{Deliver: func(r sipcheck.Result) { results <- r }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	watch, err := platform.WatchSocketsDestroyed(ctx, []uint8{protocol}, []uint16{at.Port()},
		func(s platform.SocketDestroyed) bool { return s.Served(protocol, at) },
		func(platform.SocketDestroyed) { p.ProbeNow() })
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	awaitVerdict(t, results, sipcheck.Up)

	killed := time.Now()
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitVerdict(t, results, sipcheck.Refused)
	return time.Since(killed)
}

// startServer starts a process with a SIP server, which prints its port.
func startServer(t *testing.T, listen string) (*exec.Cmd, uint16) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "SIPCHECK_TEST_SERVE="+listen)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := child.StdinPipe(); err != nil { // closed when this process ends
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		child.Process.Kill()
		child.Wait()
	})
	var port uint16
	if _, err := fmt.Fscanln(out, &port); err != nil {
		t.Fatalf("server on %s says no port: %v", listen, err)
	}
	return child, port
}

func awaitVerdict(t *testing.T, results chan sipcheck.Result, want sipcheck.Verdict) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		select {
		case r := <-results:
			if r.Verdict == want {
				return
			}
		case <-deadline:
			t.Fatalf("never %v", want)
		}
	}
}
