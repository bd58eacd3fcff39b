package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sipalive/platform/stalltest"
)

// home is the example of design §7 with every default filled in.
func home() *Config {
	node := func(name, address string) Node {
		return Node{Name: name, Address: netip.MustParseAddr(address), Voter: true, Holder: true, Capacity: 1}
	}
	vip := func(name, address, prefer string) VIP {
		return VIP{Name: name, Address: netip.MustParseAddr(address), Interface: "eth0", Prefer: []string{prefer}, Weight: 1, Announce: true}
	}
	return &Config{
		File: "testdata/home.toml", Cluster: "pbx-dc1", KeyFile: "/etc/sipalive/key", Port: 7946, Fence: FenceAuto, Failback: FailbackManual, Survivor: SurvivorAuto,
		Timing: Timing{
			Heartbeat: 200 * time.Millisecond, Lease: time.Second, SurvivorAfter: 3 * time.Second, HoldDown: 10 * time.Second, Settle: 5 * time.Second,
			Stagger: 50 * time.Millisecond, FailbackAfter: time.Minute, Exclude: time.Minute,
		},
		Nodes: []Node{node("pbx1", "192.0.2.11"), node("pbx2", "192.0.2.12"), node("pbx3", "192.0.2.13")},
		SIP: SIP{
			Targets: []Target{{
				Name: "main", Transport: "udp", Port: 5060, On: OnNode, SelfInterval: 200 * time.Millisecond, PeerInterval: time.Second,
				Timeout: 400 * time.Millisecond, Fall: 3, Rise: 3,
			}},
			UserAgent: "sipalive", Verify: true, VerifyTimeout: 10 * time.Second, TLSVerify: true,
			SelfInterval: 200 * time.Millisecond, PeerInterval: time.Second,
		},
		FreeSWITCH: FreeSWITCH{Address: "127.0.0.1:8021", PasswordFile: "/etc/sipalive/freeswitch.password"},
		VIPs:       []VIP{vip("vip1", "192.0.2.101", "pbx1"), vip("vip2", "192.0.2.102", "pbx2")},
		Mail:       Mail{Server: "127.0.0.1:25", TLS: MailTLSOpportunistic, From: "sipalive@localhost"},
		Announce:   Announce{Refresh: 30 * time.Second},
		Control:    Control{Group: "sipalive"},
	}
}

func TestLoadHome(t *testing.T) {
	got, err := Load("testdata/home.toml")
	if err != nil {
		t.Fatal(err)
	}
	opts := cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmpopts.IgnoreUnexported(VIP{})}
	if diff := cmp.Diff(home(), got, opts); diff != "" {
		t.Error(diff)
	}
}

func TestReferenceActions(t *testing.T) {
	c := mustParse(t, Reference())
	want := []Action{
		{On: Acquire, Memcached: []string{"127.0.0.1:11211"}, Timeout: 5 * time.Second, OnFailure: OnFailureContinue},
		{On: Acquire, FreeSWITCH: []string{"sofia profile vip1 recover"}, Timeout: 5 * time.Second, OnFailure: OnFailureContinue},
		{On: Acquire, Exec: []string{"/etc/sipalive/hooks/takeover", "--vip", "vip1"}, Timeout: 5 * time.Second, OnFailure: OnFailureContinue},
		{On: Acquire, HTTP: "https://example.net/hook", Timeout: 5 * time.Second, OnFailure: OnFailureContinue},
	}
	if diff := cmp.Diff(want, c.VIPs[0].Actions); diff != "" {
		t.Error(diff)
	}
	var verbs []string
	for _, a := range c.VIPs[0].Actions {
		verbs = append(verbs, a.Verb())
	}
	if !slices.Equal(verbs, []string{"memcached", "freeswitch", "exec", "http"}) {
		t.Error(verbs)
	}
	if r := c.Roles[0]; !r.PreferSpare || len(r.Prefer) != 0 || len(r.Actions) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestReferenceIsACopy(t *testing.T) {
	Reference()[0] = 'x'
	if Reference()[0] != '#' {
		t.Error("a caller can change the embedded reference")
	}
}

func TestTargetsInherit(t *testing.T) {
	c := mustParse(t, []byte(minimal+`
[sip]
timeout = "300ms"
fall = 7
unhealthy_codes = [503, 404, 503]
[[sip.target]]
interval = "50ms"
[[sip.target]]
name = "tls"
uri = "tls:5080"
timeout = "1s"
fall = 2
rise = 1
unhealthy_codes = []
`))
	want := []Target{
		{Name: "main", Transport: "udp", Port: 5060, On: OnNode, SelfInterval: 50 * time.Millisecond, PeerInterval: 50 * time.Millisecond,
			Timeout: 300 * time.Millisecond, Fall: 7, Rise: 3, UnhealthyCodes: []int{404, 503}},
		{Name: "tls", Transport: "tls", Port: 5080, On: OnNode, SelfInterval: 200 * time.Millisecond, PeerInterval: time.Second,
			Timeout: time.Second, Fall: 2, Rise: 1},
	}
	if diff := cmp.Diff(want, c.SIP.Targets); diff != "" {
		t.Error(diff)
	}
}

const minimal = `
cluster = "c"
key_file = "/k"
[[node]]
name = "pbx1"
address = "127.0.0.1"
`

// Changing one target's codes does not change another's.
func TestTargetsShareNothing(t *testing.T) {
	c := mustParse(t, []byte(minimal+"[sip]\nunhealthy_codes = [503]\n[[sip.target]]\n[[sip.target]]\nname = \"b\"\nuri = \"udp:5080\"\n"))
	c.SIP.Targets[0].UnhealthyCodes[0] = 404
	if got := c.SIP.Targets[1].UnhealthyCodes; !slices.Equal(got, []int{503}) {
		t.Errorf("the other target has %v now", got)
	}
}

func TestLoadRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, []byte(strings.Repeat("# ten bytes\n", 10<<20/12)), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"):    "no such file; name it with -c, or start from `sipalive reference`",
		filepath.Join(dir, "no\nne"):  "no such file; name it with -c, or start from `sipalive reference`",
		dir:                           "is a directory; name the file in it",
		big:                           "the file is larger than 1048576 bytes; this is not a sipalive configuration",
		fifo:                          "the file is empty; `sipalive reference` prints every key",
		loop:                          "cannot be opened: too many levels of symbolic links",
		filepath.Join(big, "in-file"): "cannot be opened: not a directory",
		"/dev/zero":                   "the file is larger than 1048576 bytes; this is not a sipalive configuration",
	} {
		c, err := Load(path)
		shown := strings.ReplaceAll(path, "\n", `\n`)
		if err == nil || c != nil || err.Error() != shown+": "+want {
			t.Errorf("%s: got  %v\nwant %s: %s", path, err, shown, want)
		}
	}
}

// The worst files are refused in reasonable time: nothing is quadratic in what fits into
// a megabyte.
func TestHugeFilesAreRefusedQuickly(t *testing.T) {
	fill := func(piece func(i int) string) []byte {
		var b strings.Builder
		b.WriteString(minimal)
		for i := 0; b.Len() < maxFile-4096; i++ {
			b.WriteString(piece(i))
		}
		return []byte(b.String())
	}
	watcher := stalltest.NewWatcher(t)
	for name, data := range map[string][]byte{
		"nodes":        fill(func(int) string { return "[[node]]\n" }),
		"named nodes":  fill(func(i int) string { return fmt.Sprintf("[[node]]\nname=\"n%d\"\n", i) }),
		"vips":         fill(func(int) string { return "[[vip]]\n" }),
		"unknown keys": fill(func(i int) string { return fmt.Sprintf("k%d = 1\n", i) }),
		"inline keys":  []byte(minimal + "x = {" + strings.Repeat("a = 1, b = 2, ", maxFile/20) + "}"),
		"dotted keys":  fill(func(i int) string { return fmt.Sprintf("a.k%d.b = 1\n", i) }),
		"tables":       fill(func(i int) string { return fmt.Sprintf("[t%d]\n", i) }),
		"sub-tables":   fill(func(i int) string { return fmt.Sprintf("[[a.b]]\n[a.b.c%d]\n", i) }),
		"dotted key":   fill(func(int) string { return "a." }),
		"long prefer":  append(fill(func(i int) string { return "#\n" }), "[[vip]]\nprefer=["+strings.Repeat("'x',", 500)+"]"...),
		"nodes times prefer": append(fill(func(i int) string { return fmt.Sprintf("[[node]]\nname=\"%06d\"\n", i) })[:len(minimal)+23*20000],
			"[[vip]]\nprefer=["+strings.Repeat("'x',", 100000)+"]"...),
		"long string": []byte("cluster = \"" + strings.Repeat("x", maxFile-100) + "\""),
		"open arrays": []byte("x = " + strings.Repeat("[", maxFile-100)),
		"line feeds":  []byte(strings.Repeat("\n", maxFile-100) + "x"),
	} {
		began := time.Now()
		c, err := Parse("f.toml", data)
		if err == nil || c != nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if n := len(err.Error()); n > 4*maxText {
			t.Errorf("%s: a message of %d bytes", name, n)
		}
		took := time.Since(began)
		t.Logf("%s: %v", name, took)
		if stood := watcher.Since(began); took > 20*time.Second+stood {
			t.Errorf("%s: took %v, of which the machine stood still for %v", name, took, stood)
		}
	}
}

func TestCheckInterfaces(t *testing.T) {
	c, err := Load("testdata/home.toml")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckInterfaces(func(name string) bool { return name == "eth0" }); err != nil {
		t.Error(err)
	}
	want := "testdata/home.toml:17: interface \"eth0\" of vip \"vip1\": this machine has no such interface; see `ip link`, or leave interface out to use that of the node's address"
	err = c.CheckInterfaces(func(string) bool { return false })
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	c = mustParse(t, []byte(minimal+"[[vip]]\nname = \"v\"\naddress = \"192.0.2.1\"\n"))
	if err := c.CheckInterfaces(func(string) bool { return false }); err != nil {
		t.Errorf("no interface named, yet: %v", err)
	}
}
