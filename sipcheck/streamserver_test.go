package sipcheck

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// authority signs the certificates of test servers.
type authority struct {
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
	roots *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{roots: x509.NewCertPool()}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.roots.AddCert(a.cert)
	return a
}

// issue makes a server certificate for pbx1.example.net.
func (a *authority) issue(t testing.TB, notAfter time.Time) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "pbx1.example.net"},
		DNSNames: []string{"pbx1.example.net"}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// streamServer is a SIP server over TCP or TLS made from one function, which returns what
// to send back for the n-th message (from 0), and whether to close the connection then.
type streamServer struct {
	addr   netip.AddrPort
	ln     net.Listener
	secure *tls.Config

	mu       sync.Mutex
	conns    map[net.Conn]bool
	accepted int
	seen     []request
	wg       sync.WaitGroup
}

type talk func(n int, r request) (out [][]byte, hangUp bool)

func answers(b behaviour) talk {
	return func(n int, r request) ([][]byte, bool) { return b(n, r), false }
}

func serveStream(t testing.TB, at netip.AddrPort, secure *tls.Config, answer talk) *streamServer {
	t.Helper()
	ln, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	s := &streamServer{addr: at, ln: ln, secure: secure, conns: map[net.Conn]bool{}}
	s.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.accepted++
			s.conns[conn] = true
			s.mu.Unlock()
			s.wg.Go(func() { s.talk(conn, answer) })
		}
	})
	t.Cleanup(s.kill)
	return s
}

func (s *streamServer) talk(raw net.Conn, answer talk) {
	defer func() {
		raw.Close()
		s.mu.Lock()
		delete(s.conns, raw)
		s.mu.Unlock()
	}()
	conn := raw
	if s.secure != nil {
		conn = tls.Server(raw, s.secure)
	}
	r := newMessageReader(conn)
	for {
		m, err := r.next()
		if err != nil {
			return
		}
		s.mu.Lock()
		n := len(s.seen)
		s.seen = append(s.seen, request(m))
		if n > 1000 { // long runs need not keep every request
			s.seen = s.seen[:0]
		}
		s.mu.Unlock()
		out, hangUp := answer(n, request(m))
		for _, b := range out {
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
		if hangUp {
			return
		}
	}
}

// kill closes the listener and resets every connection, as the kernel does when a process
// is killed.
func (s *streamServer) kill() {
	s.ln.Close()
	s.hangUp()
	s.wg.Wait()
}

// hangUp ends every connection with a reset.
func (s *streamServer) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

func (s *streamServer) accepts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

func (s *streamServer) requests() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.seen...)
}
