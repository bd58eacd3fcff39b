package sipcheck

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// realServers are SIP servers as Debian packages them, each on a loopback address of its
// own: the same port over UDP and TCP, 5061 over TLS.
var realServers = []struct {
	name, pkg string
	over      []Transport
	code      int // its answer to our OPTIONS
	server    string
	start     func(t testing.TB, dir string, at netip.Addr) *exec.Cmd
}{
	{"kamailio", "kamailio kamailio-tls-modules", []Transport{UDP, TCP, TLS}, 200, "kamailio", startKamailio},
	{"sipp over UDP", "sip-tester", []Transport{UDP}, 200, "", func(t testing.TB, dir string, at netip.Addr) *exec.Cmd { return startSIPp(t, dir, at, "u1") }},
	{"sipp over TCP", "sip-tester", []Transport{TCP}, 200, "", func(t testing.TB, dir string, at netip.Addr) *exec.Cmd { return startSIPp(t, dir, at, "t1") }},
	{"baresip", "baresip-core", []Transport{UDP, TCP, TLS}, 404, "baresip", startBaresip}, // our OPTIONS names none of its users; any answer counts as healthy
}

func startKamailio(_ testing.TB, dir string, at netip.Addr) *exec.Cmd {
	cfg := fmt.Sprintf(`#!KAMAILIO
children=1
tcp_children=1
enable_tls=yes
listen=udp:%[1]v:5060
listen=tcp:%[1]v:5060
listen=tls:%[1]v:5061
server_header="Server: kamailio"
loadmodule "sl.so"
loadmodule "tls.so"
modparam("tls", "certificate", "%[2]s/cert.pem")
modparam("tls", "private_key", "%[2]s/key.pem")
modparam("tls", "tls_method", "TLSv1.2+")
request_route { sl_send_reply("200", "Keepalive"); }
`, at, dir)
	write(dir, "kamailio.cfg", cfg)
	return exec.Command("kamailio", "-f", filepath.Join(dir, "kamailio.cfg"), "-DD", "-E", "-Y", dir, "-P", filepath.Join(dir, "pid"), "-m", "32", "-M", "4")
}

func startSIPp(_ testing.TB, dir string, at netip.Addr, transport string) *exec.Cmd {
	write(dir, "uas.xml", `<?xml version="1.0"?><scenario name="options"><recv request="OPTIONS"/><send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=[call_number]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send></scenario>`)
	return exec.Command("sipp", "-sf", filepath.Join(dir, "uas.xml"), "-i", at.String(), "-p", "5060", "-t", transport, "-nostdin", "-deadcall_wait", "0")
}

func startBaresip(_ testing.TB, dir string, at netip.Addr) *exec.Cmd {
	write(dir, "config", fmt.Sprintf("sip_listen\t%v:5060\nsip_certificate\t%s/both.pem\nmodule_path\t/usr/lib/baresip/modules\nmodule_app\taccount.so\n", at, dir))
	write(dir, "accounts", fmt.Sprintf("<sip:pbx@%v>;regint=0\n", at))
	return exec.Command("baresip", "-f", dir)
}

func write(dir, name, text string) {
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		panic(err) // cannot happen: the directory is the test's own
	}
}

// TestRealServers: each server answers over each transport that it speaks. It stays up
// while its connection is kept and renewed, and is refused as soon as it is killed.
func TestRealServers(t *testing.T) {
	ca := newAuthority(t)
	for _, c := range realServers {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			at, dir := ownAddress().Addr(), t.TempDir()
			ca.writeFiles(t, dir)
			cmd := c.start(t, dir, at)
			kill := run(t, cmd, dir, c.pkg)
			for _, by := range c.over {
				a, err := firstPing(t, netip.AddrPortFrom(at, by.DefaultPort()), by, ca)
				if err != nil {
					t.Fatalf("%v: %v\n%s", by, err, output(dir))
				}
				t.Logf("%v: %d %s in %v, connected in %v, %s", by, a.Code, a.Phrase, a.RTT, a.Connect, a.Server)
				if a.Code != c.code || !strings.Contains(a.Server, c.server) {
					t.Errorf("%v: %+v, want %d by %s", by, a, c.code, c.server)
				}
				if by == TLS && (a.Certificate == nil || a.Certificate.Problem != nil || a.Certificate.Subject != "pbx1.example.net") {
					t.Errorf("%+v", a.Certificate)
				}
			}
			var probers []*running
			for _, by := range c.over {
				target := with(quick(netip.AddrPortFrom(at, by.DefaultPort())), by)
				p := launch(t, target, Options{Security: Security{Roots: ca.roots}})
				p.change(Up)
				p.until("a hundred answers", func(s Stats) bool { return s.Answered >= 100 })
				if st := p.Stats(); st.Timeouts+st.Malformed+st.SendErrors != 0 {
					t.Errorf("%v: %+v", by, st)
				}
				probers = append(probers, p)
			}
			kill()
			for _, p := range probers {
				p.change(Refused)
			}
		})
	}
}

// firstPing pings until the server has started.
func firstPing(t testing.TB, at netip.AddrPort, by Transport, ca *authority) (a Answer, err error) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		a, err = Ping(t.Context(), at, PingOptions{Transport: by, Security: Security{Roots: ca.roots}})
		if err == nil {
			return a, nil
		}
	}
	return a, err
}

// run starts a server in its own process group. kill ends every process of the group;
// when it returns, their sockets are closed.
func run(t testing.TB, cmd *exec.Cmd, dir, pkg string) (kill func()) {
	t.Helper()
	if _, err := exec.LookPath(cmd.Path); err != nil {
		t.Fatalf("%v (apt-get install %s)", err, pkg)
	}
	out, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	return kill
}

func output(dir string) []byte {
	b, _ := os.ReadFile(filepath.Join(dir, "output"))
	return b[max(0, len(b)-3000):]
}

// writeFiles writes a server's certificate and key in the forms that such programs want.
func (a *authority) writeFiles(t testing.TB, dir string) {
	t.Helper()
	pair := a.issue(t, time.Now().Add(time.Hour)).Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	write(dir, "cert.pem", string(cert))
	write(dir, "key.pem", string(private))
	write(dir, "both.pem", string(bytes.Join([][]byte{cert, private}, nil)))
}

// TestCostOfProbing measures the processor time of the probers of three nodes together.
// Each node has four targets at the default rates, all on one Kamailio. Each node's
// probers have their own grid, as in an agent.
func TestCostOfProbing(t *testing.T) {
	at, ca := kamailioToProbe(t)
	for name, targets := range costly {
		t.Run(name, func(t *testing.T) {
			if share := costOf(t, at, ca, targets); share > 3 { // each node has a third of it: a busy machine wakes us late, with cold caches
				t.Errorf("%.2f %% of a core", share)
			}
		})
	}
}

// costly are the transports of one node's targets.
var costly = map[string][]Transport{"UDP": {UDP, UDP, UDP, UDP}, "mixed": {UDP, UDP, TCP, TLS}}

// BenchmarkCostOfProbing checks each node's probers against the promised cost.
func BenchmarkCostOfProbing(b *testing.B) {
	const promised = 0.5 // percent of a core
	at, ca := kamailioToProbe(b)
	for name, targets := range costly {
		b.Run(name, func(b *testing.B) {
			share := costOf(b, at, ca, targets) / 3
			b.ReportMetric(share, "%core")
			b.ReportMetric(0, "ns/op")
			if share > promised {
				b.Errorf("the probers of one node take %.2f %% of a core, at most %v are promised", share, promised)
			}
		})
	}
}

func kamailioToProbe(t testing.TB) (netip.Addr, *authority) {
	t.Helper()
	ca := newAuthority(t)
	at, dir := ownAddress().Addr(), t.TempDir()
	ca.writeFiles(t, dir)
	run(t, startKamailio(t, dir, at), dir, "kamailio kamailio-tls-modules")
	if _, err := firstPing(t, netip.AddrPortFrom(at, 5061), TLS, ca); err != nil {
		t.Fatalf("%v\n%s", err, output(dir))
	}
	return at, ca
}

// costOf returns percent of a core for all three nodes together.
func costOf(t testing.TB, at netip.Addr, ca *authority, targets []Transport) (share float64) {
	var probers []*running
	var grids []time.Time
	for i := range 3 {
		grids = append(grids, time.Now().Add(time.Duration(i)*67*time.Millisecond-time.Second))
	}
	for node := range grids {
		for observer, grid := range grids {
			for _, by := range targets {
				target := Target{Node: fmt.Sprint(node), Name: by.String(), Transport: by, Address: netip.AddrPortFrom(at, by.DefaultPort())}
				if node == observer {
					target.Interval = 200 * time.Millisecond
				}
				probers = append(probers, launch(t, target, Options{Security: Security{Roots: ca.roots}, Grid: fixed(grid)}))
			}
		}
	}
	for _, p := range probers {
		p.change(Up)
	}
	const long = 4 * time.Second
	before, start := spent(t), time.Now()
	time.Sleep(long) // the measured time, not a wait for something
	took, used := time.Since(start), spent(t)-before
	share = 100 * used.Seconds() / took.Seconds()
	t.Logf("%d probers: %.2f %% of a core, %.2f %% each node's, %v per probe", len(probers), share, share/3, used/time.Duration(max(1, 84*took/time.Second)))
	for _, p := range probers {
		p.stop()
	}
	return share
}

// spent returns this process's processor time.
func spent(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
