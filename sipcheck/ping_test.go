package sipcheck

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestPing(t *testing.T) {
	overAll(t, func(t *testing.T, k streamKind) {
		at, requests := k.listen(t, func(_ int, r request) [][]byte {
			return [][]byte{replay(t, "freeswitch-standby-503.sip", r)}
		})
		a, err := Ping(t.Context(), at, PingOptions{Transport: k.by, Security: Security{Roots: k.ca.roots}, Timeout: patience, UserAgent: "probe"})
		if err != nil || a.Code != 503 || a.Phrase != "System Paused" || a.RTT <= 0 || !strings.HasPrefix(a.Server, "FreeSWITCH") {
			t.Fatalf("%+v, %v", a, err)
		}
		if (a.Connect > 0) != (k.by != UDP) || (a.Certificate != nil) != (k.by == TLS) {
			t.Fatalf("%+v", a)
		}
		if r := requests(); len(r) != 1 || r[0].header("User-Agent") != "probe" {
			t.Fatalf("sent %q", r)
		}
	})
}

func TestPingFails(t *testing.T) {
	closed, s := ownAddress(), serve(t, ownAddress(), mute)
	for _, c := range []struct {
		name string
		to   netip.AddrPort
		opts PingOptions
		is   error
		says string
	}{
		{"refused", closed, PingOptions{}, syscall.ECONNREFUSED,
			"OPTIONS sip:" + closed.String() + ": connection refused (nothing listens on that UDP port)"},
		{"silent", s.addr, PingOptions{Timeout: 30 * time.Millisecond}, context.DeadlineExceeded,
			"OPTIONS sip:" + s.addr.String() + ": no answer within 30ms (asked twice; a firewall, or the server hangs)"},
		{"foreign source", s.addr, PingOptions{Timeout: 30 * time.Millisecond, Local: netip.MustParseAddr("192.0.2.77")}, syscall.EADDRNOTAVAIL,
			"bind: cannot assign requested address"},
		{"nowhere", netip.AddrPort{}, PingOptions{}, nil, "no address and port to ask"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Ping(t.Context(), c.to, c.opts)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %v, want %s", err, c.says)
			}
		})
	}
}

func TestPingIsCanceled(t *testing.T) {
	s := serve(t, ownAddress(), mute)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Ping(ctx, s.addr, PingOptions{Timeout: time.Hour}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}
