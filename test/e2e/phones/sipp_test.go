package phones

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"sipalive/platform"
	"sipalive/test/lab"
)

// sippPort is where SIPp serves on each node.
const sippPort = 5064

// sippServers starts SIPp's own server over TCP on every node.
func (s *site) sippServers() {
	s.t.Helper()
	for _, h := range s.Nodes() {
		_, err := h.Start(lab.Spec{Name: "sipp-" + h.Name, Path: "sipp", Dir: s.t.TempDir(), Args: []string{
			"-sn", "uas", "-t", "t1", "-i", "0.0.0.0", "-p", fmt.Sprint(sippPort), "-nostdin"}})
		s.must(err)
	}
}

// sippCalls has SIPp, at each address, in one long call over one connection.
func (s *site) sippCalls(from ...netip.Addr) {
	s.t.Helper()
	for i, a := range from {
		_, err := s.Phone().Start(lab.Spec{Name: fmt.Sprint("sipp-phone", i), Path: "sipp", Dir: s.t.TempDir(), Args: []string{
			netip.AddrPortFrom(s.VIPs[0], sippPort).String(), "-sn", "uac", "-t", "t1", "-i", a.String(), "-p", fmt.Sprint(5071 + i),
			"-m", "1", "-d", "120000", "-nostdin", "-max_reconnect", "100", "-reconnect_close", "false", "-reconnect_sleep", "50"}})
		s.must(err)
	}
	s.sippAt(s.holder(), len(from))
}

// sippAt waits until a node has n of SIPp's connections, and says when that was.
func (s *site) sippAt(node string, n int) time.Duration {
	s.t.Helper()
	h := s.Node(s.Index(node))
	s.await(fmt.Sprintf("%d connections of SIPp at %s", n, node), func(context.Context) error {
		found := 0
		err := h.Do(func() error {
			return platform.EstablishedTCP(s.VIPs, func(local, _ netip.AddrPort) {
				if local.Port() == sippPort {
					found++
				}
			})
		})
		if err == nil && found < n {
			err = fmt.Errorf("%d", found)
		}
		return err
	})
	return lab.Now()
}
