package keepalived

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sipalive/config"
)

var update = flag.Bool("update", false, "write testdata/*.toml anew")

// options are those of the golden files: on that machine every interface has one address
// besides the virtual address that it holds.
var options = Options{Host: "host-a", ConfigID: "left", AddressesOf: func(string) []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("192.0.2.101"), netip.MustParseAddr("192.0.2.11")}
}}

// TestGolden: each file becomes the expected text, and sipalive accepts that text.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		o := options
		o.File = filepath.Base(f)
		got, err := Import(string(text), o)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		if _, err := config.Parse("imported", []byte(got)); err != nil {
			t.Errorf("%s: sipalive refuses what became of it: %v\n%s", f, err, got)
		}
		golden := strings.TrimSuffix(f, ".conf") + ".toml"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", golden, diff)
		}
	}
}

const instanceOf = `vrrp_instance V { interface eth0
unicast_src_ip 192.0.2.1
unicast_peer { 192.0.2.2 }
virtual_ipaddress { 192.0.2.9 }
%
}`

func imported(t *testing.T, lines string) *config.Config {
	t.Helper()
	text, err := Import(strings.Replace(instanceOf, "%", lines, 1), Options{})
	if err != nil {
		t.Fatalf("%s: %v", lines, err)
	}
	c, err := config.Parse("imported", []byte(text))
	if err != nil {
		t.Fatalf("%s: %v\n%s", lines, err, text)
	}
	return c
}

// TestTimes: however short the adverts are, sipalive accepts the lease, and it is no
// slower than keepalived.
func TestTimes(t *testing.T) {
	for advert, want := range map[string][2]time.Duration{
		"1":     {time.Second, 200 * time.Millisecond},
		"0.5":   {time.Second, 200 * time.Millisecond},
		"0.3":   {900 * time.Millisecond, 180 * time.Millisecond},
		"0.1":   {300 * time.Millisecond, 60 * time.Millisecond},
		"0.02":  {60 * time.Millisecond, 12 * time.Millisecond},
		"0.01":  {40 * time.Millisecond, 10 * time.Millisecond},
		"12":    {time.Second, 200 * time.Millisecond},
		"never": {time.Second, 200 * time.Millisecond},
		"-1":    {time.Second, 200 * time.Millisecond},
		"NaN":   {time.Second, 200 * time.Millisecond},
		"1e300": {time.Second, 200 * time.Millisecond},
	} {
		c := imported(t, "advert_int "+advert)
		if got := [2]time.Duration{c.Timing.Lease, c.Timing.Heartbeat}; got != want {
			t.Errorf("advert_int %s: lease and heartbeat %v, want %v", advert, got, want)
		}
	}
}

func TestFailbackAndPrefer(t *testing.T) {
	for lines, want := range map[string]struct {
		prefer string
		back   config.Failback
		after  time.Duration
	}{
		"state MASTER":                          {"node1", config.FailbackAuto, time.Minute},
		"state MASTER\npreempt_delay 5":         {"node1", config.FailbackAuto, 5 * time.Second},
		"state BACKUP":                          {"node2", config.FailbackAuto, time.Minute},
		"state BACKUP\nnopreempt":               {"node2", config.FailbackManual, time.Minute},
		"priority 255":                          {"node1", config.FailbackAuto, time.Minute},
		"nopreempt\nunicast_peer { 192.0.2.3 }": {"", config.FailbackManual, time.Minute},
	} {
		c := imported(t, lines)
		if got := strings.Join(c.VIPs[0].Prefer, " "); got != want.prefer || c.Failback != want.back || c.Timing.FailbackAfter != want.after {
			t.Errorf("%q: prefer %q, failback %s after %s; want %+v", lines, got, c.Failback, c.Timing.FailbackAfter, want)
		}
	}
}

// TestPrograms: the command line that each script becomes.
func TestPrograms(t *testing.T) {
	for command, want := range map[string][]string{
		`"/usr/bin/x a  b"`:     {"/usr/bin/x", "a", "b"},
		`/usr/bin/x`:            {"/usr/bin/x"},
		`"x a"`:                 {"/bin/sh", "-c", "x a"},
		`"/usr/bin/x | tee"`:    {"/bin/sh", "-c", "/usr/bin/x | tee"},
		`"/usr/bin/x 'a b'"`:    {"/bin/sh", "-c", "/usr/bin/x 'a b'"},
		`"</dev/tcp/::1/80"`:    {"/bin/bash", "-c", "</dev/tcp/::1/80"},
		`"/x \"a b\""`:          {"/bin/sh", "-c", `/x "a b"`},
		`'/usr/bin/x "quoted"'`: {"/bin/sh", "-c", `/usr/bin/x "quoted"`},
	} {
		c := imported(t, "notify_master "+command)
		if diff := cmp.Diff(want, c.VIPs[0].Actions[0].Exec); diff != "" {
			t.Errorf("%s: %s", command, diff)
		}
	}
	c := imported(t, "notify /x\nnotify_master /y root")
	if len(c.VIPs[0].Actions) != 3 || c.VIPs[0].Actions[2].User != "root" {
		t.Fatalf("actions %+v", c.VIPs[0].Actions)
	}
	for i, want := range [][]string{{"/x", "INSTANCE", "V", "MASTER", "100"}, {"/x", "INSTANCE", "V", "BACKUP", "100"}} {
		if diff := cmp.Diff(want, c.VIPs[0].Actions[i].Exec); diff != "" {
			t.Error(diff)
		}
	}
}

// TestHalfTracked: a check is about the whole node, so the file notes an instance that
// did not track the script.
func TestHalfTracked(t *testing.T) {
	const script = "vrrp_script s { script /x }\n"
	one := strings.Replace(instanceOf, "%", "track_script { s }", 1)
	for text, want := range map[string]bool{script + one: false, script + one + "\nvrrp_instance W { virtual_ipaddress { 192.0.2.8 } }": true} {
		got, err := Import(text, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(got, "not every vrrp_instance tracks it") != want || !strings.Contains(got, `exec     = ["/bin/sh", "-c", "/x || exit 2"]`) {
			t.Errorf("said: %t\n%s", !want, got)
		}
	}
}

// TestLinks: each interface is decided once, over all instances, in whatever order.
func TestLinks(t *testing.T) {
	in := func(name, iface, links string) string {
		return "vrrp_instance " + name + " { interface " + iface + "\nunicast_src_ip 192.0.2.1\nvirtual_ipaddress { 192.0.2.10" + name + " }\ntrack_interface { " + links + " }\n}\n"
	}
	const own = "is released anyway"
	for name, c := range map[string]struct {
		text string
		want map[string]string // what is noted about a tracked interface; "": it becomes a check, without a note
	}{
		"its own":                  {in("1", "eth0", "eth0"), map[string]string{"eth0": own}},
		"each its own":             {in("1", "eth0", "eth0") + in("2", "eth1", "eth1"), map[string]string{"eth0": own, "eth1": own}},
		"another's after its own":  {in("1", "eth0", "eth0") + in("2", "eth1", "eth0"), map[string]string{"eth0": ""}},
		"another's before its own": {in("2", "eth1", "eth0") + in("1", "eth0", "eth0"), map[string]string{"eth0": ""}},
		"another's, on it":         {in("1", "eth0", "") + in("2", "eth1", "eth0"), map[string]string{"eth0": ""}},
		"each other's":             {in("1", "eth0", "eth1") + in("2", "eth1", "eth0"), map[string]string{"eth0": "", "eth1": ""}},
		"a third's, by both":       {in("1", "eth0", "eth2") + in("2", "eth1", "eth2"), map[string]string{"eth2": ""}},
		"a third's, by one":        {in("1", "eth0", "eth2") + in("2", "eth1", ""), map[string]string{"eth2": halfTracked}},
		"one on it, one not":       {in("1", "eth0", "eth0") + in("2", "eth1", "eth0") + in("3", "eth2", ""), map[string]string{"eth0": halfTracked}},
		"no name":                  {in("1", "eth0", "..") + in("2", "eth1", ""), map[string]string{"..": "no interface can be called that"}},
	} {
		got, err := Import(c.text, Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for link, want := range c.want {
			said := strings.Contains(got, ", track_interface "+link+": ")
			checked := strings.Contains(got, "/sys/class/net/"+link+"/operstate")
			if said != (want != "") || !strings.Contains(got, want) || checked != (want == "" || want == halfTracked) {
				t.Errorf("%s: of %s something is said: %t, want %q; there is a check: %t\n%s", name, link, said, want, checked, got)
			}
		}
	}
}

func TestGivenNodes(t *testing.T) {
	o := Options{Nodes: []Node{{"a", netip.MustParseAddr("192.0.2.5")}, {"b", netip.MustParseAddr("192.0.2.1")}}}
	text, err := Import(strings.Replace(instanceOf, "%", "state MASTER", 1), o)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("imported", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	// The file is from node b: its unicast_src_ip says so.
	if len(c.Nodes) != 2 || c.VIPs[0].Prefer[0] != "b" {
		t.Errorf("nodes %+v, prefer %v", c.Nodes, c.VIPs[0].Prefer)
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "the file has no vrrp_instance; nothing to import",
		"vrrp_instance V { interface eth0 }": "nothing to import",
		"vrrp_instance V { virtual_ipaddress { 192.0.2.9 } }": "no unicast_src_ip",
		"vrrp_instance V { unicast_src_ip 192.0.2.1 }":        "nothing to import",
		"a {\n b {\n }":                "line 3: the file ends inside a block; a } is missing",
		"}":                            "line 1: } closes nothing",
		"\n\"a":                        "line 2: a quote is not closed",
		"a \"b\n\"":                    "line 1: a quote is not closed",
		"x ${A\n}":                     "line 1: ${ is not closed",
		"x\n\xff":                      "line 2: byte 0xff is not UTF-8; save the file as UTF-8",
		"x\n\x00":                      "line 2: a NUL byte; this is no keepalived.conf",
		strings.Repeat("a {", 40):      "blocks are nested more than 16 deep",
		strings.Repeat(" ", maxText+1): "larger than 1048576 bytes",
		// Variables that double each time ("billion laughs") have to be stopped.
		"$A=" + strings.Repeat("x", 1000) + "\n" + strings.Repeat("$A=$A$A\n", 40): "the file and its variables make more than",
	} {
		if _, err := Import(text, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

// FuzzImport: no input panics or hangs, and the output is a valid file.
func FuzzImport(f *testing.F) {
	files, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	for _, lines := range []string{"notify \"/x\" 'a b'", "track_interface { eth1 .. a/b }", "state MASTER\npriority 255", "advert_int 0.001"} {
		f.Add(strings.Replace(instanceOf, "%", lines, 1))
	}
	f.Fuzz(func(t *testing.T, text string) {
		o := options
		o.File = text[:min(len(text), 50)]
		got, err := Import(text, o)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		if _, err := config.Parse("imported", []byte(got)); err != nil {
			t.Errorf("%v\n%s", err, got)
		}
	})
}
