package phones

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"

	"sipalive/test/lab"
)

// The ports on which the nodes serve phones, beside their PBX.
const (
	plainPort = 5062
	tlsPort   = 5063
)

// servers starts the servers on every node.
func (s *site) servers() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	s.must(err)
	secure := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}
	for _, h := range s.Nodes() {
		s.serve(s.listen(h, plainPort))
		s.serve(tls.NewListener(s.listen(h, tlsPort), secure))
	}
}

func (s *site) listen(h *lab.Host, port int) (l net.Listener) {
	s.t.Helper()
	s.must(h.Do(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		return err
	}))
	return l
}

// serve answers each line with the same line, on connections that it never closes itself.
func (s *site) serve(l net.Listener) {
	var mu sync.Mutex
	var open []net.Conn
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				for r := bufio.NewReader(c); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					if _, err := c.Write([]byte(line)); err != nil {
						return
					}
				}
			})
		}
	})
	s.t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			if t, is := c.(*tls.Conn); is {
				c = t.NetConn() // closing TLS properly would wait for a phone that is gone
			}
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}
