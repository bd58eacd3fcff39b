package realinput

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/test/lab"
)

// vipOf returns the address of the i-th VIP, counted from 1, in a node's network.
func vipOf(h *lab.Host, i int) netip.Addr {
	ip := h.Addr.As4()
	ip[3] = byte(100 + i)
	return netip.AddrFrom4(ip)
}

// serving returns where a PBX listens: on the node's own address and on both VIPs.
func serving(h *lab.Host) []netip.Addr {
	return []netip.Addr{h.Addr, vipOf(h, 1), vipOf(h, 2)}
}

// kamailio returns Debian's Kamailio as a node's PBX, over UDP, which names itself like
// the node. Without listen it listens where serving says.
func kamailio(t *testing.T, h *lab.Host, listen ...netip.Addr) lab.Spec {
	t.Helper()
	if len(listen) == 0 {
		listen = serving(h)
	}
	lines := ""
	for _, a := range listen {
		lines += fmt.Sprintf("listen=udp:%v:5060\n", a)
	}
	return kamailioIn(t, h, t.TempDir(), lines, "disable_tcp=yes")
}

// kamailioOverAll also speaks TCP and TLS, with a certificate of this authority.
func kamailioOverAll(t *testing.T, h *lab.Host, by *lab.Authority) lab.Spec {
	t.Helper()
	dir, lines := t.TempDir(), ""
	cert, key, err := by.Issue(h.Name, time.Now().Add(time.Hour))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600))
	for _, a := range serving(h) {
		lines += fmt.Sprintf("listen=udp:%[1]v:5060\nlisten=tcp:%[1]v:5060\nlisten=tls:%[1]v:5061\n", a)
	}
	return kamailioIn(t, h, dir, lines, fmt.Sprintf(`tcp_children=1
enable_tls=yes
loadmodule "tls.so"
modparam("tls", "certificate", "%[1]s/cert.pem")
modparam("tls", "private_key", "%[1]s/key.pem")
modparam("tls", "tls_method", "TLSv1.2+")`, dir))
}

func kamailioIn(t *testing.T, h *lab.Host, dir, listen, streams string) lab.Spec {
	t.Helper()
	template, err := os.ReadFile("testdata/kamailio.cfg")
	must(t, err)
	cfg := filepath.Join(dir, "kamailio.cfg")
	must(t, os.WriteFile(cfg, []byte(strings.NewReplacer("NAME", h.Name, "LISTEN", listen, "STREAMS", streams).Replace(string(template))), 0o644))
	return lab.Spec{Name: "kamailio", Path: "kamailio", Args: []string{
		"-f", cfg, "-DD", "-E", "-Y", dir, "-P", filepath.Join(dir, "pid"), "-m", "32", "-M", "4"}}
}

// sipp returns SIPp as a node's PBX, which answers OPTIONS with a status line and takes
// calls. Unless it is bound to one address, it answers from whichever address the kernel
// picks. So there is one process per address, all in one process group.
func sipp(t *testing.T, h *lab.Host, status string) lab.Spec {
	t.Helper()
	template, err := os.ReadFile("testdata/uas.xml")
	must(t, err)
	must(t, h.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_nonlocal_bind", []byte("1"), 0) }))
	dir := t.TempDir()
	scenario := filepath.Join(dir, "uas.xml")
	must(t, os.WriteFile(scenario, []byte(strings.NewReplacer("NAME", h.Name, "STATUS", status).Replace(string(template))), 0o644))
	script := ""
	for _, a := range serving(h) {
		script += fmt.Sprintf("sipp -sf %s -i %v -p 5060 -nostdin -deadcall_wait 0 </dev/null >/dev/null 2>%s/%v.err &\n", scenario, a, dir, a)
	}
	return lab.Spec{Name: "sipp", Path: "/bin/sh", Args: []string{"-c", script + "wait"}, Dir: dir}
}

// pbxBy returns a cluster option that runs f's PBX on every node.
func pbxBy(f func(h *lab.Host) lab.Spec) func(*lab.Host) (lab.Spec, bool) {
	return func(h *lab.Host) (lab.Spec, bool) { return f(h), true }
}
