package peers

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"sipalive/test/lab"
)

type ucarp struct{ *plain }

func startUcarp() (tool, error) {
	p, err := newPlain()
	u := &ucarp{p}
	if err != nil {
		return u, err
	}
	p.spec = u.daemonsOf
	for name, verb := range map[string]string{"up": "add", "down": "del"} {
		script := fmt.Sprintf("#!/bin/sh\n# interface, address\nexec ip address %s \"$2/32\" dev \"$1\"\n", verb)
		if err := os.WriteFile(u.script(name), []byte(script), 0o755); err != nil {
			return u, err
		}
	}
	return u, p.begin()
}

func (u *ucarp) script(name string) string { return filepath.Join(u.DataDir(), "ucarp-"+name) }
func (u *ucarp) version() string           { return debian("ucarp") }
func (u *ucarp) heartbeat() time.Duration  { return time.Second }
func (u *ucarp) unmove() error             { return nil }

// skews are by VIP and node, in 1/256 s: home is the quickest, then the spare.
var skews = [2][3]int{{0, 100, 50}, {100, 0, 50}}

// daemonsOf returns one daemon per VIP, since a ucarp has only one address.
func (u *ucarp) daemonsOf(node int) (specs []lab.Spec) {
	for v, vip := range u.vips() {
		specs = append(specs, lab.Spec{Name: fmt.Sprintf("ucarp-vip%d", v+1), Path: "ucarp", Args: []string{"--interface=eth0",
			"--srcip=" + u.Node(node).Addr.String(), fmt.Sprintf("--vhid=%d", v+1), "--pass=secret", "--addr=" + vip.String(), "--preempt", "--shutdown",
			fmt.Sprintf("--advskew=%d", skews[v][node]), "--upscript=" + u.script("up"), "--downscript=" + u.script("down")}})
	}
	return specs
}

// move uses ucarp's own command for a move: the master becomes a backup.
func (u *ucarp) move() error { return syscall.Kill(u.daemons[0][0].Pid, syscall.SIGUSR2) }
