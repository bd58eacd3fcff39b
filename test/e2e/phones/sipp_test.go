package phones

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"sipalive/platform"
	"sipalive/test/lab"
)

// The ports on which SIPp serves on each node. The router masquerades connections to the
// second one.
const (
	sippPort    = 5064
	sippNATPort = 5065
)

// sippServers starts SIPp's own server over TCP on every node.
func (s *site) sippServers() {
	s.t.Helper()
	for _, h := range s.Nodes() {
		for _, port := range []int{sippPort, sippNATPort} {
			_, err := h.Start(lab.Spec{Name: fmt.Sprint("sipp", port), Path: "sipp", Dir: s.t.TempDir(), Args: []string{
				"-sn", "uas", "-t", "t1", "-i", "0.0.0.0", "-p", fmt.Sprint(port), "-nostdin"}})
			s.must(err)
			s.await("SIPp serving", func(context.Context) error { // the client ends if it is refused
				return h.Do(func() error {
					c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
					if err == nil {
						err = c.Close()
					}
					return err
				})
			})
		}
	}
}

// sippPhones lets SIPp call each server, with one long call over one connection. SIPp
// connects again when that connection ends.
func (s *site) sippPhones() {
	s.t.Helper()
	for i, port := range []uint16{sippPort, sippNATPort} {
		p, err := s.Phone().Start(lab.Spec{Name: fmt.Sprint("sipp", port), Path: "sipp", Dir: s.t.TempDir(), Args: []string{
			netip.AddrPortFrom(s.VIPs[0], port).String(), "-sn", "uac", "-t", "t1", "-i", s.Phone().Addr.String(), "-p", fmt.Sprint(5071 + i),
			"-m", "1", "-d", "120000", "-nostdin", "-max_reconnect", "100", "-reconnect_close", "false", "-reconnect_sleep", "50"}})
		s.must(err)
		s.t.Cleanup(func() {
			if s.t.Failed() {
				s.t.Logf("SIPp to port %d:\n%s", port, tail(p.Output()))
			}
		})
		s.sippAt("pbx1", port)
	}
}

// sippAt waits until a node has SIPp's connection to a port, and returns when that was.
func (s *site) sippAt(node string, port uint16) time.Duration {
	s.t.Helper()
	h := s.Node(s.Index(node))
	s.await(fmt.Sprintf("SIPp connected to port %d of %s", port, node), func(context.Context) error {
		found := false
		err := h.Do(func() error {
			return platform.EstablishedTCP(s.VIPs, func(local, _ netip.AddrPort) { found = found || local.Port() == port })
		})
		if err == nil && !found {
			err = fmt.Errorf("it is not")
		}
		return err
	})
	return lab.Now()
}
