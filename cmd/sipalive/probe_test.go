package main

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sipalive/config"
	"sipalive/sipcheck"
	"sipalive/test/lab"
)

// TestProbeAsksFromTheNodesAddress: as the agent does. The kernel may choose a VIP, to
// which the answer would go wherever that is held.
func TestProbeAsksFromTheNodesAddress(t *testing.T) {
	pbx, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 77, 9, 12)})
	if err != nil {
		t.Fatal(err)
	}
	defer pbx.Close()
	heard := make(chan netip.AddrPort, 10)
	go func() {
		request := make([]byte, 2000)
		for {
			n, asker, err := pbx.ReadFromUDPAddrPort(request)
			if err != nil {
				return
			}
			heard <- asker
			if answer, ok := lab.Answer(nil, request[:n], asker, "pbx"); ok {
				_, _ = pbx.WriteToUDPAddrPort(answer, asker)
			}
		}
	}()
	_, port, _ := net.SplitHostPort(pbx.LocalAddr().String())
	c, err := config.Parse("c.toml", []byte(strings.ReplaceAll(`cluster = "c"
key_file = "/k"
[[sip.target]]
uri = "udp:PORT"
[[node]]
name = "pbx1"
address = "127.77.9.11"
holder = false
[[node]]
name = "pbx2"
address = "127.77.9.12"
`, "PORT", port)))
	if err != nil {
		t.Fatal(err)
	}
	self := c.Node("pbx1")
	for _, here := range []bool{true, false} {
		var local []netip.Addr
		want := "127.0.0.1" // the kernel's choice
		if here {
			local, want = []netip.Addr{self.Address}, "127.77.9.11"
		}
		found := findings(t.Context(), c, self, from(self, local), sipcheck.Security{})
		if len(found) != 1 || found[0].word != "up" {
			t.Fatalf("%+v", found)
		}
		select {
		case asker := <-heard:
			if asker.Addr().Unmap().String() != want {
				t.Errorf("the node's address on this machine: %v; asked from %v, want %s", here, asker, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("answered, but never asked")
		}
	}
}
