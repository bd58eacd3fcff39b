package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// helperEnv makes this test binary run as one of the programs that the tests start.
const helperEnv = "LAB_TEST_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "":
		goleak.VerifyTestMain(m)
	case "idle": // waits to be killed
		fmt.Println("idle", strings.Join(os.Args[1:], " "))
		waitToBeKilled()
	case "polite": // ends on SIGTERM
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println("bye")
	case "parent": // leaves a child in its process group and one outside it
		for _, sys := range []*syscall.SysProcAttr{{}, {Setsid: true}} {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), helperEnv+"=idle")
			cmd.SysProcAttr = sys
			if err := cmd.Start(); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			fmt.Println("child", cmd.Process.Pid)
		}
		fmt.Println("ready")
		waitToBeKilled()
	case "serve":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := ServeOptions(ctx, os.Args[1], os.Args[2]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "leave": // builds a lab and waits to be killed
		l, err := New(Options{Prefix: os.Args[1]})
		if err == nil {
			_, err = l.Node(0).Start(helper("parent"))
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("built", l.RunName())
		waitToBeKilled()
	}
}

// waitToBeKilled blocks in the kernel. If all goroutines waited for each other, the Go
// runtime would end the process.
func waitToBeKilled() {
	for {
		_ = unix.Pause()
	}
}

// helper returns a Spec that runs this test binary in one of its roles.
func helper(role string, args ...string) Spec {
	return Spec{Name: role, Path: os.Args[0], Args: args, Env: []string{helperEnv + "=" + role}}
}

func newLab(t *testing.T, opts Options) *Lab {
	t.Helper()
	l, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if names := namespacesOf(t, l.RunName()); len(names) > 0 {
			t.Errorf("left behind: %v", names)
		}
	})
	return l
}

func namespacesOf(t *testing.T, run string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(namespaceDir, run+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within waits for a condition, at most d.
func within(t *testing.T, d time.Duration, what string, cond func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	must(t, WaitFor(ctx, what, cond))
}

// sink counts the datagrams that reach a host at a port, and echoes them if asked.
type sink struct {
	conn  *net.UDPConn
	addr  netip.AddrPort
	count atomic.Int64
}

func listen(t *testing.T, h *Host, port uint16, echo bool) *sink {
	t.Helper()
	s := &sink{addr: netip.AddrPortFrom(h.Addr, port)}
	must(t, h.Do(func() (err error) {
		s.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(s.addr))
		return err
	}))
	raw, err := s.conn.SyscallConn()
	must(t, err)
	// Room for all that a test sends: what the test counts as lost must have been lost on
	// the way.
	must(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) }))
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := s.conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			s.count.Add(1)
			if echo {
				_, _ = s.conn.WriteToUDPAddrPort(b[:n], from)
			}
		}
	}()
	t.Cleanup(func() { s.conn.Close(); <-done })
	return s
}

func dial(t *testing.T, h *Host, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	must(t, h.Do(func() (err error) {
		conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	return conn
}

// reaches asks again and again, and reports whether an echo comes back in time.
func reaches(conn *net.UDPConn, d time.Duration) bool {
	b := make([]byte, 64)
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := conn.Write([]byte("ping")); err != nil {
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := conn.Read(b); err == nil {
			return true
		}
	}
	return false
}

// flood sends datagrams at a pace that overruns no buffer.
func flood(t *testing.T, conn *net.UDPConn, n int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := range n {
		_, err := conn.Write([]byte("datagram"))
		must(t, err)
		if i%20 == 19 {
			<-tick.C
		}
	}
}

// serve runs the SIP server on a host inside this process.
func serve(t *testing.T, h *Host) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- h.Do(func() error { return ServeOptions(ctx, "0.0.0.0:5060", h.Name) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func sip(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 5060) }

// answered waits until an observer has an answer to a question sent from now on.
func answered(t *testing.T, o *SIPObserver) {
	t.Helper()
	since := Now()
	within(t, 10*time.Second, fmt.Sprintf("an answer from %v", o.Target), func() error {
		if p, ok := o.Last(); !ok || p.Sent < since {
			return fmt.Errorf("last answer %+v", p)
		}
		return nil
	})
}

// gone returns an error if the process lives. A zombie counts as gone.
func gone(pid int) error {
	if _, err := startTime(pid); err == nil && unix.Kill(pid, 0) == nil {
		return fmt.Errorf("process %d lives", pid)
	}
	return nil
}
