package sipcheck_test

import (
	"bufio"
	"context"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/platform"
	"sipalive/sipcheck"
)

// A SIP server process is killed with -9; the kernel's notice of its socket makes
// the prober ask, and the refused port is the verdict. Interval and timeout are
// out of reach: nothing but the notice can have caused the probe.
func TestKilledServerIsRefusedWithinMilliseconds(t *testing.T) {
	for _, c := range []struct{ name, listen, probe string }{
		{"own address", "127.0.0.1:45060", "127.0.0.1:45060"},
		{"all IPv4 addresses", "0.0.0.0:45061", "127.0.0.1:45061"},
		{"all addresses, dual stack", "[::]:45062", "127.0.0.1:45062"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var took []time.Duration
			for range 11 {
				took = append(took, killOnce(t, c.listen, netip.MustParseAddrPort(c.probe)))
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

func killOnce(t *testing.T, listen string, at netip.AddrPort) time.Duration {
	t.Helper()
	child := startServer(t, listen)
	results := make(chan sipcheck.Result, 100)
	p := sipcheck.NewProber(sipcheck.Target{Node: "pbx1", Name: "main", Address: at,
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
	watch, err := platform.WatchSocketsDestroyed(ctx, []uint16{at.Port()},
		func(s platform.SocketDestroyed) bool { return s.Served(unix.IPPROTO_UDP, at) },
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

func startServer(t *testing.T, listen string) *exec.Cmd {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "SIPCHECK_TEST_SERVE="+listen)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		child.Process.Kill()
		child.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("server on %s says %q: %v", listen, line, err)
	}
	return child
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
