package commands

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/overlay"
	"sipalive/test/shipped"
)

// binary is the path of sipalive as it is shipped, built once per run.
var binary string

func TestMain(m *testing.M) { os.Exit(shipped.Main(m, "docs/commands", &binary)) }

const (
	config   = "/etc/sipalive/sipalive.toml"
	patience = 30 * time.Second
	endless  = "1" // seconds after which a command that never ends is ended
	flush    = "[[action]]\non = \"flush\"\nexec = [\"/bin/true\"]\n"
)

// machine is a root and the networks in which its commands run.
type machine struct {
	*overlay.Root
	*cluster.Cluster
	t      *testing.T
	node   netns.NsHandle // that of pbx1
	lonely netns.NsHandle // 192.0.2.11 without any other node
}

// TestCommands: every command of the pages does what the page says, or the table names
// another test that shows it.
func TestCommands(t *testing.T) {
	rows := map[string]int{}
	m := (*machine)(nil)
	for _, c := range commands(t) {
		r := find(c.text)
		if r == nil {
			t.Errorf("%s:%d: %s: no row of the table in table_test.go says how to run it, or what else covers it", c.page, c.line, c.text)
			continue
		}
		rows[r.begins]++
		if r.way == elsewhere {
			t.Logf("%s:%d: %s: %s", c.page, c.line, c.text, r.why)
			continue
		}
		if m == nil {
			m = start(t)
		}
		m.do(c, r)
	}
	for _, r := range table {
		if rows[r.begins] == 0 {
			t.Errorf("no page has a command that begins with %q: the row goes, or the pages lost something", r.begins)
		}
	}
}

func find(text string) *row {
	for i := range table {
		if strings.HasPrefix(text, table[i].begins) {
			return &table[i]
		}
	}
	return nil
}

// start builds cluster, root and networks. It locks the test's goroutine to its thread,
// which has mounts and a network of its own.
func start(t *testing.T) *machine {
	t.Helper()
	c, err := cluster.Start(cluster.Options{Binary: binary, TOML: "[timing]\nhold_down = \"0s\"\n" + flush})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	runtime.LockOSThread()
	m := &machine{Cluster: c, Root: overlay.New(t), t: t}
	if m.node, err = netns.GetFromPid(c.Agent(0).Pid); err != nil {
		t.Fatal(err)
	}
	m.lonely = lonely(t)
	t.Cleanup(func() { _, _ = m.node.Close(), m.lonely.Close() })
	m.furnish()
	m.settle()
	return m
}

// lonely makes a network with one address, and a router that does not answer.
func lonely(t *testing.T) netns.NsHandle {
	t.Helper()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	eth0 := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "cable"}
	address, _ := netlink.ParseAddr("192.0.2.11/24")
	gateway, _ := netlink.ParseAddr("192.0.2.1/32")
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cable"}}
	err = errors.Join(netlink.LinkAdd(eth0), netlink.LinkSetUp(cable), netlink.LinkSetUp(eth0), netlink.AddrAdd(eth0, address))
	if err == nil {
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Index, Gw: gateway.IP})
	}
	if err = errors.Join(err, netns.Set(before)); err != nil {
		t.Fatal(err)
	}
	return ns
}

// furnish puts into the root what the package installs and what a node has.
func (m *machine) furnish() {
	m.t.Helper()
	program, err := os.ReadFile(binary)
	if err != nil {
		m.t.Fatal(err)
	}
	m.Write(m.t, "/usr/bin/sipalive", string(program), 0o755)
	m.Write(m.t, "/run/keepalived.conf", keepalived, 0o644)
	m.Write(m.t, "/run/event_socket.conf.xml", eventSocket, 0o644)
	m.Write(m.t, "/etc/sipalive/reference.toml", "", 0o644)
	examples := m.Path + "/usr/share/doc/sipalive"
	if err := errors.Join(os.MkdirAll(examples, 0o755), os.CopyFS(examples+"/examples", os.DirFS(source+"examples"))); err != nil {
		m.t.Fatal(err)
	}
	run := m.Path + "/run/sipalive"
	if err := errors.Join(os.Mkdir(run, 0o755), unix.Mount(m.RunDir(0), run, "", unix.MS_BIND, "")); err != nil {
		m.t.Fatal(err)
	}
}

// The parts of other programs' files that the pages' commands read.
const (
	keepalived = `vrrp_instance VI_1 {
    state MASTER
    interface eth0
    virtual_router_id 51
    priority 100
    unicast_src_ip 192.0.2.11
    unicast_peer {
        192.0.2.12
    }
    virtual_ipaddress {
        192.0.2.101
    }
}
`
	eventSocket = `<configuration name="event_socket.conf">
  <settings>
    <param name="listen-ip" value="127.0.0.1"/>
    <param name="password" value="ClueCon"/>
  </settings>
</configuration>
`
)

// do runs one command as its page shows it, with the changes of its row.
func (m *machine) do(c command, r *row) {
	m.t.Helper()
	at, text := m.lonely, c.text
	if r.way == onNode {
		at = m.node
		text = strings.NewReplacer("192.0.2.", strings.TrimSuffix(m.Node(0).Addr.String(), "11"), "-c FILE", "-c "+config).Replace(text)
		m.file()
	}
	if r.not != "" && !strings.Contains(text, r.not) {
		m.t.Errorf("%s:%d: %s: nothing in it is %q any more (table_test.go)", c.page, c.line, c.text, r.not)
		return
	}
	if r.not != "" {
		text = strings.Replace(text, r.not, r.but, 1)
	}
	if r.ends == 124 {
		text = "timeout " + endless + " " + text
	}
	if err := netns.Set(at); err != nil {
		m.t.Fatal(err)
	}
	began := time.Now()
	fail := func(what, out string, err error) {
		m.t.Errorf("%s:%d: %s: %s: %v\n%s", c.page, c.line, c.text, what, err, out)
	}
	if out, err := m.Try("sh", "-ec", "cd /root; "+r.before); err != nil {
		fail("before: "+r.before, out, err)
		return
	}
	out, err := m.Try("bash", "-eo", "pipefail", "-c", "cd /root; "+text)
	var exit *exec.ExitError
	switch {
	case r.ends != 0 && errors.As(err, &exit) && exit.ExitCode() == r.ends:
	case r.ends != 0 || err != nil:
		fail("run as "+text, out, err)
	case r.prints && c.prints != "" && below(out) != below(c.prints):
		fail("the page shows\n"+c.prints+"it prints", out, nil)
	case !strings.Contains(out, r.want):
		fail(fmt.Sprintf("it does not say %q", r.want), out, nil)
	}
	if after, err := m.Try("sh", "-ec", "cd /root; "+r.after); err != nil {
		fail("after: "+r.after, after, err)
	}
	m.t.Logf("%s:%d: %s: run in %v", c.page, c.line, c.text, time.Since(began).Round(time.Millisecond))
	if r.way == onNode {
		m.settle()
	}
}

// below returns the text after the first line, which depends on the machine.
func below(text string) string {
	_, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return rest
}

// file writes the cluster's own file and key into the root.
func (m *machine) file() {
	m.t.Helper()
	text, err := os.ReadFile(m.Config)
	if err != nil {
		m.t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(filepath.Dir(m.Config), "key"))
	if err != nil {
		m.t.Fatal(err)
	}
	m.Write(m.t, "/etc/sipalive/key", string(key), 0o600)
	m.Write(m.t, config, strings.Replace(string(text), filepath.Join(filepath.Dir(m.Config), "key"), "/etc/sipalive/key", 1), 0o644)
}

// settle waits until the cluster is as the next command expects it: every VIP held at
// home, every node fit and none drained.
func (m *machine) settle() {
	m.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	err := lab.WaitFor(ctx, "a cluster at rest", func() error {
		st, err := m.Client(0).Status(ctx)
		if err != nil {
			return err
		}
		for i, v := range st.VIPs {
			if home := fmt.Sprintf("pbx%d", i+1); v.State != "held" || v.Holder != home || !v.Verified {
				return fmt.Errorf("%s is %s at %q, verified %t", v.Name, v.State, v.Holder, v.Verified)
			}
		}
		for _, n := range st.Nodes {
			if !n.Fit || n.Drained {
				return fmt.Errorf("%s: fit %t, drained %t", n.Name, n.Fit, n.Drained)
			}
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
}
