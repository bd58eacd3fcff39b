package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/sipcheck"
	"sipalive/test/lab"
)

// TestTargetsStatusShowsTheCertificate: the status shows when the certificate ends and
// why it is not trusted, whether or not that makes the listener sick.
func TestTargetsStatusShowsTheCertificate(t *testing.T) {
	named, other := newAuthority(t, "Named"), newAuthority(t, "Other")
	ends := time.Now().Add(72 * time.Hour).Truncate(time.Second).UTC()
	at := serveTLS(t, named, ends)
	const stranger = `certificate of "pbx1": x509: certificate signed by unknown authority`
	for name, c := range map[string]struct {
		security       sipcheck.Security
		state, problem string // of the certificate
		fails          string // the probe's error
	}{
		"believed":               {sipcheck.Security{Roots: roots(t, named)}, "up", "", ""},
		"not believed":           {sipcheck.Security{Roots: roots(t, other)}, "silent", "", "TLS: " + stranger},
		"not believed, answered": {sipcheck.Security{Roots: roots(t, other), Insecure: true}, "up", stranger, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := statusOf(t, sipcheck.Target{Node: "pbx1", Name: "secure", Address: at, Transport: sipcheck.TLS, Timeout: 300 * time.Millisecond, Fall: 2}, c.security,
				func(s control.TargetStatus) bool { return s.State == c.state && strings.Contains(s.Error, c.fails) })
			if s.CertificateProblem != c.problem {
				t.Errorf("%+v, want %q", s, c.problem)
			}
			if c.fails != "" {
				return // it never answered
			}
			if s.CertificateEnds == nil || !s.CertificateEnds.Equal(ends) || s.Error != "" || s.Code != 200 {
				t.Errorf("%+v, want a certificate until %v", s, ends)
			}
		})
	}
}

// statusOf probes a target until its status is right.
func statusOf(t *testing.T, target sipcheck.Target, security sipcheck.Security, right func(control.TargetStatus) bool) control.TargetStatus {
	t.Helper()
	p := sipcheck.NewProber(target, sipcheck.Options{Security: security})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if s := targetsStatus([]*sipcheck.Prober{p})[0]; right(s) {
			return s
		} else if time.Now().After(deadline) {
			t.Fatalf("%+v", s)
		}
	}
}

// serveTLS answers every OPTIONS over TLS.
func serveTLS(t *testing.T, by *lab.Authority, ends time.Time) netip.AddrPort {
	t.Helper()
	cert, key, err := by.Issue("pbx1", ends)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for request := make([]byte, 2000); ; { // each request comes in one record
					n, err := conn.Read(request)
					if err != nil {
						return
					}
					_, _ = conn.Write(ok(request[:n]))
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func newAuthority(t *testing.T, name string) *lab.Authority {
	t.Helper()
	a, err := lab.NewAuthority(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func roots(t *testing.T, a *lab.Authority) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(a.PEM()) {
		t.Fatal("no certificate in the authority's PEM")
	}
	return pool
}
