package sipcheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Security says which TLS certificates to accept. The zero value verifies them against
// the system's roots.
type Security struct {
	// Insecure accepts any certificate. Its expiry is still reported.
	Insecure bool
	// Roots are the trusted authorities; nil: the system's.
	Roots *x509.CertPool
	// Name is the name that the certificate must contain. If it is "", no name is
	// checked: targets are configured by address, while certificates of PBXes contain
	// names.
	Name string
}

// Certificate describes the certificate that a server showed.
type Certificate struct {
	Subject  string // common name, or else its first DNS name; printable
	Issuer   string
	NotAfter time.Time
	Problem  error // why it is not trusted, whether Insecure or not; nil: it is trusted
}

// LoadRoots reads authorities from a PEM file. For "" it returns nil, the system's.
func LoadRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the TLS authorities: %w (see tls_ca under [sip])", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the TLS authorities: %s holds no certificate in PEM (see tls_ca under [sip])", path)
	}
	return roots, nil
}

// dialer connects to one target.
type dialer struct {
	local  netip.Addr // invalid: the kernel chooses
	remote netip.AddrPort
	secure *Security // nil: TCP alone
	now    func() time.Time
}

// open connects, and over TLS does the handshake. It passes the TCP connection to keep as
// soon as it exists. keep returns false if the connection is no longer wanted.
func (d dialer) open(ctx context.Context, keep func(*net.TCPConn) bool) (*established, error) {
	began := d.now()
	to := net.Dialer{KeepAlive: -1, Control: shareLocalPorts} // probes serve as keepalive
	if d.local.IsValid() {
		to.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(d.local, 0))
	}
	conn, err := to.DialContext(ctx, "tcp", d.remote.String())
	if err != nil {
		return nil, plain(err)
	}
	tcp := conn.(*net.TCPConn)
	if localOf(tcp.LocalAddr().(*net.TCPAddr).AddrPort()) == d.remote {
		tcp.Close()
		return nil, errSelf(d.remote)
	}
	if !keep(tcp) {
		tcp.Close()
		return nil, context.Canceled
	}
	up := &established{conn: tcp}
	if d.secure != nil {
		secured := tls.Client(tcp, d.config(&up.cert))
		if err := secured.HandshakeContext(ctx); err != nil {
			tcp.Close()
			return nil, fmt.Errorf("TLS: %w", plain(err))
		}
		up.conn = secured
	}
	up.took = d.now().Sub(began)
	return up, nil
}

// shareLocalPorts lets the kernel choose the local port at connect, by the whole
// connection. A port chosen at bind would stay unusable for all other connections for a
// minute after each close, and there are only 28,000 (IP_BIND_ADDRESS_NO_PORT, Linux
// 4.2).
func shareLocalPorts(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	return errors.Join(err, failed)
}

// config makes Security judge the certificate instead of crypto/tls, because an untrusted
// certificate must still be reported, and the name is not always checked. Sessions are
// not resumed, because each handshake must show today's certificate.
func (d dialer) config(seen **Certificate) *tls.Config {
	return &tls.Config{
		ServerName:         d.secure.Name,
		InsecureSkipVerify: true, // judged by VerifyConnection
		Time:               d.now,
		VerifyConnection: func(s tls.ConnectionState) error {
			c := d.secure.judge(s.PeerCertificates, d.now())
			*seen = c
			if d.secure.Insecure {
				return nil
			}
			return c.Problem
		},
	}
}

// judge verifies a chain. Its first certificate is the server's.
func (s *Security) judge(chain []*x509.Certificate, now time.Time) *Certificate {
	leaf, others := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	name := leaf.Subject.CommonName
	if name == "" && len(leaf.DNSNames) > 0 {
		name = leaf.DNSNames[0]
	}
	c := &Certificate{Subject: printable(name), Issuer: printable(leaf.Issuer.CommonName), NotAfter: leaf.NotAfter}
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: s.Name, Roots: s.Roots, Intermediates: others, CurrentTime: now})
	if err != nil {
		c.Problem = fmt.Errorf("certificate of %q: %w", c.Subject, err)
	}
	return c
}

// plain strips the addresses that net puts before its errors.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
