package peers

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"sipalive/test/lab"
)

type keepalived struct {
	*plain
	advert time.Duration // 0: keepalived's default
}

func startKeepalived(advert time.Duration) (tool, error) {
	p, err := newPlain()
	k := &keepalived{p, advert}
	if err != nil {
		return k, err
	}
	p.spec = k.daemon
	for i := range p.Nodes() {
		if err := k.write(i, 0); err != nil {
			return k, err
		}
	}
	return k, p.begin()
}

func (k *keepalived) version() string { return debian("keepalived") }

func (k *keepalived) heartbeat() time.Duration {
	if k.advert == 0 {
		return time.Second
	}
	return k.advert
}

func (k *keepalived) file(node int, name string) string {
	return filepath.Join(k.DataDir(), k.Node(node).Name+"-keepalived"+name)
}

// daemon removes the pid files of a killed daemon. On a machine that starts many
// processes another process may have that pid, and keepalived would refuse to start.
func (k *keepalived) daemon(node int) []lab.Spec {
	for _, name := range []string{".pid", "-vrrp.pid"} {
		_ = os.Remove(k.file(node, name)) // it may not be there
	}
	return []lab.Spec{{Name: "keepalived", Path: "keepalived", Args: []string{"--dont-fork", "--log-console", "--no-syslog", "--vrrp",
		"-f", k.file(node, ".conf"), "-p", k.file(node, ".pid"), "-r", k.file(node, "-vrrp.pid")}}}
}

// priorities are by VIP and node: home 150, the spare 100, the other VIP's home 50.
var priorities = [2][3]int{{150, 50, 100}, {50, 150, 100}}

// write writes a node's file; vip1's priority is lower by that much.
func (k *keepalived) write(node, lower int) error {
	text := "global_defs {\n  router_id " + k.Node(node).Name + "\n  script_user root\n  enable_script_security\n"
	advert := ""
	if k.advert > 0 { // VRRPv2 has whole seconds
		text += "  vrrp_version 3\n"
		advert = fmt.Sprintf("  advert_int %g\n", k.advert.Seconds())
	}
	text += fmt.Sprintf("}\nvrrp_script sip {\n  script \"/usr/bin/sipsak -s sip:%s:5060\"\n  interval 1\n  fall 2\n}\n", k.Node(node).Addr)
	for v, vip := range k.vips() {
		priority := priorities[v][node]
		if v == 0 {
			priority -= lower
		}
		text += fmt.Sprintf("vrrp_instance vip%d {\n  state BACKUP\n  interface eth0\n  virtual_router_id %d\n  priority %d\n%s  virtual_ipaddress {\n    %s/32\n  }\n  track_script {\n    sip\n  }\n}\n",
			v+1, 51+v, priority, advert, vip)
	}
	return os.WriteFile(k.file(node, ".conf"), []byte(text), 0o644)
}

// reload does what systemd's ExecReload does.
func (k *keepalived) reload(lower int) error {
	if err := k.write(0, lower); err != nil {
		return err
	}
	return k.signal(0, syscall.SIGHUP)
}

func (k *keepalived) move() error   { return k.reload(120) }
func (k *keepalived) unmove() error { return k.reload(0) }
