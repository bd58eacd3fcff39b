package newcomer

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/lab"
	"sipalive/test/overlay"
)

// node is one of the newcomer's machines: a network namespace and a file system.
type node struct {
	*overlay.Root
	host *lab.Host
}

// site is three nodes in one subnet with a router, as on the pages. Each has Kamailio and
// memcached, which a newcomer brings along.
type site struct {
	t     *testing.T
	nodes []node
}

const patience = 30 * time.Second

func newSite(t *testing.T, deb string) *site {
	l := outside(t, func() (*lab.Lab, error) {
		return lab.New(lab.Options{Prefix: "newc", Subnet: netip.MustParsePrefix("192.0.2.0/24")})
	})
	end := func() {
		outside(t, func() (any, error) { return nil, l.Close() })
	}
	t.Cleanup(end)
	s := &site{t: t}
	for _, h := range l.Nodes() {
		n := node{overlay.New(t), h}
		s.furnish(n, deb)
		s.nodes = append(s.nodes, n)
	}
	t.Cleanup(end) // before the file systems of running programs are removed
	for _, n := range s.nodes[1:] {
		s.neighbour(n)
	}
	for _, n := range s.nodes {
		s.startPBX(n)
	}
	return s
}

// outside runs f outside this goroutine's mounts, where `ip netns` looks.
func outside[T any](t *testing.T, f func() (T, error)) T {
	t.Helper()
	type result struct {
		v   T
		err error
	}
	done := make(chan result)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.v
}

// furnish puts the package where `make deb` leaves it, and adds the stand-in for systemd.
func (s *site) furnish(n node, deb string) {
	content, err := os.ReadFile(deb)
	if err != nil {
		s.t.Fatal(err)
	}
	n.Write(s.t, "/root/build/"+filepath.Base(deb), string(content), 0o644)
	n.Write(s.t, "/usr/local/bin/systemctl", systemctl, 0o755)
	if err := unix.Mount("/sys", n.Path+"/sys", "", unix.MS_BIND, ""); err != nil {
		s.t.Fatal(err)
	}
	if err := unix.Mount("", n.Path+"/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		s.t.Fatal(err)
	}
}

// neighbour lets the first node reach another one through the stand-ins for ssh and scp.
func (s *site) neighbour(n node) {
	first := s.nodes[0]
	first.Write(s.t, "/usr/local/bin/ssh", ssh, 0o755)
	first.Write(s.t, "/usr/local/bin/scp", scp, 0o755)
	at := first.Path + "/run/nodes/" + n.host.Addr.String()
	first.Write(s.t, "/run/nodes/"+n.host.Addr.String()+".net", "", 0o600)
	if err := os.MkdirAll(at, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := unix.Mount(n.host.Namespace, at+".net", "", unix.MS_BIND, ""); err != nil {
		s.t.Fatal(err)
	}
	if err := unix.Mount(n.Path, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		s.t.Fatal(err)
	}
}

// startPBX starts Kamailio as docs/deployment.md demands, on the node's address and the
// VIPs, and memcached.
func (s *site) startPBX(n node) {
	template, err := os.ReadFile("../e2e/realinput/testdata/kamailio.cfg")
	if err != nil {
		s.t.Fatal(err)
	}
	listen := ""
	for _, a := range []string{n.host.Addr.String(), "192.0.2.101", "192.0.2.102"} {
		listen += "listen=udp:" + a + ":5060\n"
	}
	n.Write(s.t, "/etc/kamailio/kamailio.cfg", strings.NewReplacer("NAME", n.host.Name, "LISTEN", listen).Replace(string(template)), 0o644)
	s.on(n, "mkdir -p /run/kamailio")
	s.on(n, "setsid kamailio -DD -E -m 32 -M 4 -Y /run/kamailio -P /run/kamailio/pid </dev/null >/var/log/kamailio.log 2>&1 &")
	s.on(n, "setsid memcached -u nobody -l 127.0.0.1 </dev/null >/var/log/memcached.log 2>&1 &")
}

// try runs a shell line on a node as root.
func (n node) try(line string) (string, error) {
	out, err := exec.Command("nsenter", "--net="+n.host.Namespace, "--root="+n.Path, "--wd="+n.Path+"/root",
		"/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb", "DEBIAN_FRONTEND=noninteractive",
		"sh", "-c", line).CombinedOutput()
	return string(out), err
}

func (s *site) on(n node, line string) string {
	s.t.Helper()
	out, err := n.try(line)
	if err != nil {
		s.t.Fatalf("%s: %s: %v\n%s", n.host.Name, line, err, out)
	}
	return out
}

// install runs the page's first step, on each node.
func (s *site) install(d *diary) {
	command := d.says(page, "apt-get install ./build/sipalive_*.deb")
	for _, n := range s.nodes {
		d.note(command, "on "+n.host.Name, func() { s.on(n, command) })
	}
}

// configure runs the page's second step on the first node, and then what its output says.
func (s *site) configure(d *diary) {
	first := s.nodes[0]
	s.until("Kamailio answers", func() error {
		_, err := first.try("sipalive ping sip:" + first.host.Addr.String())
		return err
	})
	said := ""
	command := d.says(page, "sipalive init --node pbx1=192.0.2.11 --node pbx2=192.0.2.12 --node pbx3=192.0.2.13")
	d.note(command, "on pbx1", func() { said = s.on(first, command) })
	s.t.Log(said)
	if want := "192.0.2.11/24 on eth0, gateway 192.0.2.1, kamailio, which answers OPTIONS on udp:5060, memcached on 127.0.0.1:11211\n"; !strings.Contains(said, want) {
		s.t.Errorf("init did not find %s", want)
	}
	_, next, _ := strings.Cut(said, "\nOn this node:\n")
	done := 0
	for line := range strings.Lines(next) {
		if command := strings.TrimSpace(line); strings.HasPrefix(line, "  ") {
			d.note(command, "on pbx1, as init said", func() { s.on(first, command) })
			done++
		}
	}
	if done != 4 {
		s.t.Errorf("init said %d commands, want 4", done)
	}
}

// settle waits until every VIP is held at home and verified, and its router proven.
func (s *site) settle() {
	s.until("every VIP held and verified", func() error {
		out, err := s.nodes[0].try("sipalive status --json")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		var st control.Status
		if err := json.Unmarshal([]byte(out), &st); err != nil {
			return err
		}
		for i, v := range st.VIPs {
			if v.Holder != s.nodes[i].host.Name || !v.Verified || v.Router != "proven" {
				return fmt.Errorf("%+v", v)
			}
		}
		return nil
	})
}

// look runs the rest of the page: doctor, a move there and back, scripts, colleagues.
func (s *site) look(d *diary) {
	first := s.nodes[0]
	s.t.Log(s.on(first, d.says(page, "sipalive status")))
	command := d.says(page, "sipalive doctor -c /etc/sipalive/sipalive.toml")
	for _, n := range s.nodes {
		var out string
		d.note(command, "on "+n.host.Name, func() { out = s.on(n, command) }) // exit code 1 would be an error
		s.t.Log(out)
	}
	for _, begin := range []string{"sipalive probe -c /etc/sipalive/sipalive.toml", "sipalive move vip1 pbx3", "sipalive failback vip1", "sipalive events -n 5",
		"systemctl enable --now sipalive-hooks"} {
		command := d.says(page, begin)
		var out string
		d.note(command, "on pbx1", func() { out = s.on(first, command) })
		s.t.Log(out)
	}
	s.on(first, "useradd alice")
	s.on(first, d.says(page, "usermod -aG sipalive alice"))
	s.on(first, "setpriv --reuid alice --regid alice --init-groups sipalive status")
}

func (s *site) until(what string, ready func() error) {
	s.t.Helper()
	err := ready()
	for end := time.Now().Add(patience); err != nil; err = ready() {
		if time.Now().After(end) {
			s.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
