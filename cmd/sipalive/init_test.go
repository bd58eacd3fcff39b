package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sipalive/config"
	"sipalive/platform/nstest"
)

// fakePBX answers OPTIONS on one unusual port and is silent on another. init finds it by
// its process name.
func fakePBX() {
	for _, at := range []string{":5058", ":5062"} {
		conn, err := net.ListenPacket("udp", at)
		if err != nil {
			panic(err)
		}
		go func() {
			for buf := make([]byte, 2048); ; {
				n, from, err := conn.ReadFrom(buf)
				if err != nil {
					panic(err)
				}
				if at == ":5062" {
					_, _ = conn.WriteTo([]byte(sipAnswer(string(buf[:n]))), from)
				}
			}
		}()
	}
	fmt.Println("ready")
	select {}
}

// fakeMemcached listens on 127.0.0.1, or where its arguments say.
func fakeMemcached() {
	at := os.Args[1:]
	if len(at) == 0 {
		at = []string{"127.0.0.1:11311"}
	}
	var all []net.Listener
	for _, at := range at {
		l, err := net.Listen("tcp", at)
		if err != nil {
			panic(err)
		}
		all = append(all, l)
	}
	fmt.Println("ready")
	for _, l := range all {
		_, err := l.Accept()
		panic(err)
	}
}

// node makes a machine of its own, with an address, a gateway and the given programs
// running.
func node(t *testing.T, programs ...string) {
	t.Helper()
	ns := nstest.Enter(t)
	router := ns.Beside()
	ns.Wire("lan0", router, "pbx1")
	ns.Add("lan0", "192.0.2.11/24")
	if err := ns.Netlink.RouteAdd(&netlink.Route{LinkIndex: ns.Link("lan0").Attrs().Index, Gw: net.IPv4(192, 0, 2, 1)}); err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		args := strings.Fields(p)
		cmd := called(t, args[0], args[1:]...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		if _, err := io.ReadAtLeast(out, make([]byte, 6), 6); err != nil {
			t.Fatalf("%s does not start: %v", p, err)
		}
	}
}

// called returns a command that runs this test binary under another name. The binary acts
// on that name, and /proc shows it.
func called(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return exec.Command(path, args...)
}

// site returns where a test's files are written.
func site(t *testing.T) (file, key string, flags []string) {
	dir := filepath.Join(t.TempDir(), "etc")
	file, key = dir+"/sipalive.toml", dir+"/key"
	return file, key, []string{"init", "--file", file, "--key-file", key}
}

var homeCase = []string{"--node", "pbx1=192.0.2.11", "--node", "pbx2=192.0.2.12", "--node", "pbx3=192.0.2.13",
	"--vip", "vip1=192.0.2.101", "--vip", "vip2=198.51.100.102"}

func TestInitFindsAndWrites(t *testing.T) {
	node(t, "asterisk", "memcached")
	file, key, flags := site(t)
	out, err := called(t, "sipalive", append(flags, homeCase...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"found: 192.0.2.11/24 on lan0, gateway 192.0.2.1, asterisk, which answers OPTIONS on udp:5062, memcached on 127.0.0.1:11311\n",
		key + ": written, mode 0600\n", file + ": written, and good: cluster pbx, nodes: 3, VIPs: 2\n",
		"note: vip2 198.51.100.102 is in no subnet of this machine: the router needs a route to it\n",
		"  for n in 192.0.2.12 192.0.2.13; do scp -p " + key + " " + file + " root@$n:" + filepath.Dir(file) + "/; done\n",
		"  for n in 192.0.2.12 192.0.2.13; do ssh root@$n sipalive check -c " + file + "; done\n",
		"  for n in 192.0.2.12 192.0.2.13; do ssh root@$n systemctl enable --now sipalive; done\n",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 40 {
		t.Errorf("%d lines:\n%s", n, text)
	}
	t.Logf("\n%s\n%s", out, text)
	if out, err := called(t, "sipalive", "check", "-c", file).CombinedOutput(); err != nil {
		t.Errorf("check: %v: %s", err, out)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if c.SIP.Targets[0].Port != 5062 || c.VIPs[1].Actions[0].Memcached[0] != "127.0.0.1:11311" || c.VIPs[1].Prefer[0] != "pbx2" {
		t.Errorf("%+v", c)
	}
	if _, err := config.LoadKeyring(key); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]os.FileMode{file: 0o644, key: 0o600} {
		if i, err := os.Stat(path); err != nil || i.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, i.Mode(), err)
		}
	}
	shell := string(out[strings.Index(string(out), "  for n in"):])
	if out, err := exec.Command("sh", "-nc", shell).CombinedOutput(); err != nil {
		t.Errorf("the commands are none: %v: %s", err, out)
	}
}

// TestInitFindsEachPBX: init finds each PBX by the name of its process, and says where it
// answers.
func TestInitFindsEachPBX(t *testing.T) {
	for _, program := range []string{"freeswitch", "kamailio", "asterisk", "opensips"} {
		t.Run(program, func(t *testing.T) {
			node(t, program)
			file, _, flags := site(t)
			out, err := called(t, "sipalive", append(flags, homeCase...)...).CombinedOutput()
			if want := ", " + program + ", which answers OPTIONS on udp:5062\n"; err != nil || !strings.Contains(string(out), want) {
				t.Fatalf("%v, it does not say %q:\n%s", err, want, out)
			}
			c, err := config.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if of := strings.Contains(string(text), "# FreeSWITCH: a profile for each VIP"); c.SIP.Targets[0].Port != 5062 || len(c.VIPs[0].Actions) > 0 || of != (program == "freeswitch") {
				t.Errorf("%+v\n%s", c, text)
			}
		})
	}
}

// TestInitFindsMemcached: init finds a memcached whose address is right on every node. Of
// another it says why that is not in the file.
func TestInitFindsMemcached(t *testing.T) {
	const alone = "note: memcached is on 192.0.2.11:11211 alone"
	for at, want := range map[string]struct{ found, action string }{
		"0.0.0.0:11211":                            {"127.0.0.1:11211", "127.0.0.1:11211"},
		"[::1]:11211":                              {"[::1]:11211", "[::1]:11211"},
		"[::1]:11211 127.0.0.1:11211":              {"127.0.0.1:11211", "127.0.0.1:11211"},
		"192.0.2.11:11211":                         {"192.0.2.11:11211", ""},
		"192.0.2.11:11211 [::1]:11212":             {"[::1]:11212", "[::1]:11212"},
		"127.0.0.1:11213 192.0.2.11:1 [::1]:11212": {"127.0.0.1:11213", "127.0.0.1:11213"},
	} {
		t.Run(at, func(t *testing.T) {
			node(t, "memcached "+at)
			file, _, flags := site(t)
			out, err := called(t, "sipalive", append(flags, homeCase...)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), ", memcached on "+want.found+"\n") || strings.Contains(string(out), alone) != (want.action == "") {
				t.Fatalf("%v\n%s", err, out)
			}
			c, err := config.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if actions := c.VIPs[0].Actions; len(actions) > 0 {
				got = actions[0].Memcached[0]
			}
			if got != want.action {
				t.Errorf("an action empties %q, want %q", got, want.action)
			}
		})
	}
}

// TestInitSizes: a first file has at most 40 lines with everything found. Both of its
// forms say the same.
func TestInitSizes(t *testing.T) {
	everything := machine{memcached: "127.0.0.1:11211", program: "freeswitch", target: "udp:5080"}
	sized := func(nodes, witnesses, vips int) (w wish) {
		w.cluster, w.iface = "pbx", "bond0.100"
		for i := range nodes {
			w.nodes = append(w.nodes, named{fmt.Sprintf("pbx%d", i+1), netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})})
		}
		for i := range witnesses {
			w.witnesses = append(w.witnesses, named{fmt.Sprintf("db%d", i+1), netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 100)})})
		}
		for i := range vips {
			w.vips = append(w.vips, named{fmt.Sprintf("vip%d", i+1), netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)})})
		}
		return w
	}
	var table strings.Builder
	tables := map[bool]int{}
	for nodes := 1; nodes <= 5; nodes++ {
		for _, witnesses := range []int{0, 1} {
			fmt.Fprintf(&table, "\n%d nodes, %d witnesses, 1 to 8 VIPs:", nodes, witnesses)
			for vips := 1; vips <= 8; vips++ {
				w := sized(nodes, witnesses, vips)
				text := w.text(everything, "/etc/sipalive/key")
				n := strings.Count(text, "\n")
				fmt.Fprintf(&table, " %d", n)
				if n > 40 {
					t.Errorf("%d nodes, %d witnesses, %d VIPs: %d lines\n%s", nodes, witnesses, vips, n, text)
				}
				tables[strings.Contains(text, "\n[[vip]]\n")]++
				if diff := cmp.Diff(parsed(t, w.tables(everything, "/k")), parsed(t, w.rows(everything, "/k")), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmpopts.IgnoreUnexported(config.VIP{})); diff != "" {
					t.Errorf("%d nodes, %d witnesses, %d VIPs: the forms differ (-tables +rows):\n%s", nodes, witnesses, vips, diff)
				}
			}
		}
	}
	t.Logf("lines:%s\n%s", table.String(), sized(5, 0, 8).text(everything, "/etc/sipalive/key"))
	if tables[true] == 0 || tables[false] == 0 {
		t.Errorf("in tables: %v", tables)
	}
	// The most that the comment of wish.text promises.
	if text := sized(13, 0, 13).text(everything, "/k"); strings.Count(text, "\n") > 40 {
		t.Errorf("26 nodes and VIPs:\n%s", text)
	}
}

func parsed(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("init", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

// TestInitOverwritesNothing: init overwrites neither a file nor a key, and leaves nothing
// behind when it fails.
func TestInitOverwritesNothing(t *testing.T) {
	node(t)
	file, key, flags := site(t)
	fails := func(want string, more ...string) {
		t.Helper()
		out, err := called(t, "sipalive", append(flags, more...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%v, it does not say %q:\n%s", err, want, out)
		}
	}
	fails("init: nothing was written: "+file+":", append(homeCase, "--node", "pbx1=192.0.2.14")...)
	fails(`interface "wan7" of vip "vip1": this machine has no such interface`, append(homeCase, "--interface", "wan7")...)
	fails("needs --node and --vip, or a terminal to ask on")
	fails(`--vip "vip9": must be NAME=ADDRESS`, append(homeCase, "--vip", "vip9")...)
	if _, err := os.Stat(filepath.Dir(file)); !os.IsNotExist(err) {
		t.Fatalf("something was written: %v", err)
	}

	if err := os.Mkdir(filepath.Dir(key), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, []byte("no key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails(key+":1: not a key", homeCase...)
	good, err := called(t, "sipalive", "keygen").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := called(t, "sipalive", append(flags, homeCase...)...).CombinedOutput(); err != nil || !strings.Contains(string(out), key+": was there, and is used\n") {
		t.Errorf("with a key: %v\n%s", err, out)
	}
	if after, err := os.ReadFile(key); err != nil || string(after) != string(good) {
		t.Errorf("the key was overwritten: %v", err)
	}
	fails(file+" is there already, and is left as it is", homeCase...)
}

// TestInitAsks: init asks on a terminal, and repeats the question after a wrong answer.
func TestInitAsks(t *testing.T) {
	node(t)
	file, _, flags := site(t)
	terminal, line := openTerminal(t)
	cmd := called(t, "sipalive", flags...)
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = line, &out, &out
	answers := "\n" + "pbx1=192.0.2.77\n" + "pbx1=192.0.2.11\n" + "pbx2=192.0.2.12\n\n" + "db1=192.0.2.20\n\n" +
		"\n" + "192.0.2.101\n" + "sip2=192.0.2.102\n" + "none\n" + "\n" + "wan7\n" + "\n"
	if _, err := terminal.WriteString(answers); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"Name of the cluster [pbx]: ", "=192.0.2.11]: ", "  192.0.2.77 is not on this machine\n", "  one is needed\n",
		`"none": must be NAME=ADDRESS`, "Their interface [lan0]: ", `"wan7": this machine has no such interface`, "no PBX that runs"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Nodes) != 3 || c.Nodes[2].Holder || c.VIPs[0].Name != "vip1" || c.VIPs[1].Name != "sip2" || c.VIPs[0].Interface != "" {
		t.Errorf("%+v", c)
	}
}

// TestInitAnswersEnd: a terminal that hangs up leaves nothing behind.
func TestInitAnswersEnd(t *testing.T) {
	node(t)
	file, _, flags := site(t)
	terminal, line := openTerminal(t)
	cmd := called(t, "sipalive", flags...)
	cmd.Stdin = line
	if _, err := terminal.WriteString("\n\x04"); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "init: the answers end here; nothing was written") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("something was written: %v", err)
	}
}

// openTerminal opens a pseudo terminal (pty(7)): what is written to master is typed on
// line.
func openTerminal(t *testing.T) (master, line *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	line, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	_ = master.SetDeadline(time.Now().Add(20 * time.Second)) // so that no test waits for ever
	return master, line
}
