package main

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sipalive/config"
	"sipalive/doctor"
	"sipalive/eventsocket/recorded"
	"sipalive/platform"
)

// TestFindKeepers: a VIP that another program would put on the machine is found in each
// of the forms that Debian uses for it. An address that only looks like it, or one in a
// comment, is not found.
func TestFindKeepers(t *testing.T) {
	dir := t.TempDir()
	all := slices.Clone(hostFiles)
	for i, k := range all {
		all[i].files = nil
		for _, pattern := range k.files {
			all[i].files = append(all[i].files, dir+pattern)
		}
	}
	all[0].process = "doctor-keeper-none" // the test does not depend on whether one runs here
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &config.Config{VIPs: []config.VIP{{Name: "vip1", Address: netip.MustParseAddr("192.0.2.101")}, {Name: "vip6", Address: netip.MustParseAddr("2001:db8::101")}}}
	write("/etc/keepalived/other.conf", "virtual_ipaddress {\n 192.0.2.10\n ! 192.0.2.101\n}\n# 192.0.2.101\n")
	write("/etc/network/interfaces", "iface eth0 inet static\n address 192.0.2.1010\n")
	if found, unread := findKeepers(c, all); found == nil || len(found) > 0 || len(unread) > 0 {
		t.Errorf("nothing keeps a VIP, but %+v, %v", found, unread)
	}
	write("/etc/keepalived/keepalived.conf", "virtual_ipaddress {\n 192.0.2.101/24 dev eth0\n}\n")
	write("/etc/systemd/network/10-eth0.network", "[Network]\nAddress=2001:DB8::101/64\n")
	write("/etc/NetworkManager/system-connections/eth0.nmconnection", "[ipv4]\naddress1=192.0.2.101/24,192.0.2.1\n")
	write("/etc/netplan/50-cloud.yaml", "      addresses: [\"192.0.2.11/24\",\"192.0.2.101/32\"]\n")
	write("/etc/network/interfaces.d/eth0", "up ip addr add 192.0.2.101/32 dev eth0\n")
	if err := os.Symlink("loop.yaml", filepath.Join(dir, "/etc/netplan/loop.yaml")); err != nil {
		t.Fatal(err)
	}
	found, unread := findKeepers(c, all)
	if len(unread) != 1 || !strings.Contains(unread[0].Error(), "/etc/netplan/loop.yaml") {
		t.Errorf("what cannot be read is %v", unread)
	}
	var got []doctor.Keeper
	for _, k := range found {
		k.File, k.Running = k.File[len(dir):], false
		got = append(got, k)
	}
	want := []doctor.Keeper{
		{Program: "keepalived", File: "/etc/keepalived/keepalived.conf", VIP: "vip1"},
		{Program: "systemd-networkd", File: "/etc/systemd/network/10-eth0.network", VIP: "vip6"},
		{Program: "NetworkManager", File: "/etc/NetworkManager/system-connections/eth0.nmconnection", VIP: "vip1"},
		{Program: "netplan", File: "/etc/netplan/50-cloud.yaml", VIP: "vip1"},
		{Program: "ifupdown", File: "/etc/network/interfaces.d/eth0", VIP: "vip1"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestFindPBX: what a real FreeSWITCH answers to a wrong password, and a password file
// that all may read.
func TestFindPBX(t *testing.T) {
	steps := recorded.Load(t, "auth-wrong-password.txt")
	word := ""
	for _, step := range steps {
		if text, is := strings.CutPrefix(step.Client, "auth "); is {
			word = strings.TrimSpace(text)
		}
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(word+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &config.Config{FreeSWITCH: config.FreeSWITCH{Address: recorded.Serve(t, recorded.Play(steps, false)), PasswordFile: file, ReadyCheck: true}}
	p := findPBX(t.Context(), c, &config.Node{Holder: true})
	if p == nil || p.Err == nil || !strings.Contains(p.Err.Error(), "the password is not accepted") || p.PasswdErr != nil || p.Sofia != nil || !p.Used {
		t.Errorf("a wrong password: %+v", p)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if p := findPBX(t.Context(), c, &config.Node{Holder: true}); p.PasswdErr == nil || !strings.Contains(p.PasswdErr.Error(), "mode 0644") {
		t.Errorf("a password for all: %+v", p)
	}
	if p := findPBX(t.Context(), c, &config.Node{}); p != nil {
		t.Errorf("a witness has no PBX: %+v", p)
	}
}

// TestFindPBXReadsProfiles: after a real login, the profiles that package doctor has in
// its test data.
func TestFindPBXReadsProfiles(t *testing.T) {
	text, err := os.ReadFile("../../doctor/testdata/sofia.xml")
	if err != nil {
		t.Fatal(err)
	}
	login := recorded.Load(t, "auth-ok-status.txt")[:3]
	answer := fmt.Sprintf("Content-Type: api/response\nContent-Length: %d\n\n%s", len(text), text)
	steps := append(login, recorded.Step{Client: "api xml_locate configuration configuration name sofia.conf\n\n"}, recorded.Step{Server: answer})
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("ClueCon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &config.Config{FreeSWITCH: config.FreeSWITCH{Address: recorded.Serve(t, recorded.Play(steps, false)), PasswordFile: file, ReadyCheck: true}}
	p := findPBX(t.Context(), c, &config.Node{Holder: true})
	if p == nil || p.Err != nil || p.PasswdErr != nil || p.SofiaErr != nil || p.Sofia == nil || len(p.Sofia.Profiles) != 2 || p.Sofia.AutoRestart {
		t.Errorf("%+v", p)
	}
}

// TestFindServed: a listener on all addresses serves a VIP that is not here; over UDP its
// answers are in doubt. A listener on another address does not serve it.
func TestFindServed(t *testing.T) {
	all, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	one, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	tcp, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	target := func(vip string, at net.Addr, transport string) config.Target {
		return config.Target{On: vip, Transport: transport, Port: netip.MustParseAddrPort(at.String()).Port()}
	}
	vip := func(name string) config.VIP {
		return config.VIP{Name: name, Address: netip.MustParseAddr("192.0.2.101")}
	}
	local := netip.MustParseAddr("127.0.0.1")
	if got := listens([]platform.Listener{{Network: "udp", Local: netip.AddrPortFrom(local, 5060)}}, config.Target{Transport: "udp", Port: 5060}, local, true); got != doctor.Present {
		t.Errorf("on a VIP that is here: %v", got)
	}
	f := &doctor.Facts{Config: &config.Config{
		VIPs: []config.VIP{vip("everywhere"), vip("elsewhere"), vip("tcp"), vip("both"), {Name: "it", Address: local}},
		SIP: config.SIP{Targets: []config.Target{target("everywhere", all.LocalAddr(), "udp"), target("elsewhere", one.LocalAddr(), "udp"),
			target("tcp", tcp.Addr(), "tls"), target("both", all.LocalAddr(), "udp"), target("both", all.LocalAddr(), "tcp"), target("it", one.LocalAddr(), "udp")}},
	}}
	want := map[string]doctor.Served{"everywhere": doctor.Wildcard, "elsewhere": doctor.Unserved, "tcp": doctor.Beforehand, "both": doctor.Unserved, "it": doctor.Beforehand}
	if got := findServed(f); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
