package main

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/agent"
	"sipalive/config"
	"sipalive/sipcheck"
	"sipalive/test/lab"
)

// TestProbeAsksFromTheNodesAddress: probe asks from the node's own address, as the agent
// does. The kernel might choose a VIP, and then the answer would go to its holder.
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
	c := parse(t, strings.ReplaceAll(`cluster = "c"
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
`, "PORT", port))
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

// TestProbeAsksVIPs: probe asks VIPs at their own targets and at no others. No file may
// name a loopback address as a VIP, so the test puts it in afterwards.
func TestProbeAsksVIPs(t *testing.T) {
	pbx, err := net.Listen("tcp", "127.77.9.15:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pbx.Close()
	go func() {
		for {
			conn, err := pbx.Accept()
			if err != nil {
				return
			}
			request := make([]byte, 2000)
			if n, err := conn.Read(request); err == nil {
				_, _ = conn.Write([]byte(sipAnswer(string(request[:n]))))
			}
			conn.Close()
		}
	}()
	c := parse(t, fmt.Sprintf(`cluster = "c"
key_file = "/k"
[sip]
timeout = "10s"
[[sip.target]]
[[sip.target]]
name = "calls"
uri = "tcp:%d"
on = "vip1"
[[node]]
name = "pbx1"
address = "127.77.9.17"
[[vip]]
name = "vip1"
address = "192.0.2.101"
interface = "lo"
[[vip]]
name = "vip2"
address = "192.0.2.102"
interface = "lo"
`, pbx.Addr().(*net.TCPAddr).Port))
	c.VIPs[0].Address = netip.MustParseAddr("127.77.9.15")
	found := findings(t.Context(), c, nil, netip.Addr{}, sipcheck.Security{})
	if len(found) != 2 || found[0].who != "node pbx1" || found[0].word != "refused" || !found[0].bad {
		t.Fatalf("%+v", found)
	}
	if f := found[1]; f.who != "VIP vip1" || f.what != "calls, tcp:"+fmt.Sprint(c.SIP.OnVIP("vip1")[0].Port) || f.word != "up" || f.bad || !strings.HasPrefix(f.why, "200 OK in ") {
		t.Errorf("%+v", f)
	}
}

// TestProbeBelievesFreeSWITCHAsTheAgentDoes: one no does not make the node unfit, and no
// answer within a second says nothing.
func TestProbeBelievesFreeSWITCHAsTheAgentDoes(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("ClueCon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(answer string) (finding, time.Duration) {
		c := parse(t, fmt.Sprintf("cluster = \"c\"\nkey_file = \"/k\"\n[sip]\nfall = 4\n[freeswitch]\naddress = %q\npassword_file = %q\nready_check = true\n"+
			"[[node]]\nname = \"pbx1\"\naddress = \"127.77.9.11\"\n", fakeFreeSWITCH(t, answer), password))
		begun := time.Now()
		return askFreeSWITCH(t.Context(), "pbx1", c), time.Since(begun)
	}
	if f, _ := ask("false"); f.word != "would be unfit after 4 in a row" || f.why != agent.NotReady || !f.bad {
		t.Errorf("not ready: %+v", f)
	}
	var f finding
	var took time.Duration
	for range 5 { // a stall of this machine may make one try take longer
		if f, took = ask(""); took < agent.ReadyEvery*3/2 {
			break
		}
	}
	if f.word != "unknown" || f.bad || took < agent.ReadyEvery || took >= agent.ReadyEvery*3/2 {
		t.Errorf("silent: %+v after %v, the agent gives it %v", f, took, agent.ReadyEvery)
	}
}

// fakeFreeSWITCH is an event socket that gives every question the same answer; "": no
// answer.
func fakeFreeSWITCH(t *testing.T, answer string) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
				fmt.Fprint(conn, "Content-Type: auth/request\n\n")
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					switch command, _, _ := strings.Cut(lines.Text(), " "); {
					case command == "auth":
						fmt.Fprint(conn, "Content-Type: command/reply\nReply-Text: +OK accepted\n\n")
					case command == "api" && answer != "":
						fmt.Fprintf(conn, "Content-Type: api/response\nContent-Length: %d\n\n%s", len(answer), answer)
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("c.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
