package peers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"sipalive/test/lab"
)

// tool is one of the compared tools, on its own lab: three nodes with a PBX each, and two
// VIPs with the first and the second node as homes.
type tool interface {
	data() *lab.Lab
	vips() []netip.Addr
	version() string
	heartbeat() time.Duration // the length of the random part of a fault's moment

	pbx(node int) *lab.Process
	startPBX(node int) error
	agents(node int) []*lab.Process // the tool's daemons on a node
	startAgents(node int) error

	move() error   // moves vip1 away from home, as an operator would
	unmove() error // removes what keeps vip1 from coming home
	rest(context.Context) error
	goHome() error // tells the tool to bring the VIPs home, if it must be told
	close() error
}

// start starts a tool under a setting.
func start(name string, setting string) (t tool, err error) {
	switch name {
	case "sipalive":
		return startSipalive(interval(setting))
	case "keepalived":
		t, err = startKeepalived(interval(setting))
	case "ucarp":
		t, err = startUcarp()
	default:
		return nil, fmt.Errorf("no tool %q", name)
	}
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// plain is what keepalived and ucarp share: a lab, and daemons that bring their VIPs home
// by themselves.
type plain struct {
	*lab.Lab
	pbxes   []*lab.Process
	daemons [][]*lab.Process
	spec    func(node int) []lab.Spec
}

func newPlain() (*plain, error) {
	l, err := lab.New(lab.Options{})
	if err != nil {
		return &plain{}, err
	}
	n := len(l.Nodes())
	return &plain{Lab: l, pbxes: make([]*lab.Process, n), daemons: make([][]*lab.Process, n)}, nil
}

// begin starts PBXes and daemons.
func (p *plain) begin() error {
	var err error
	for i := range p.Nodes() {
		err = errors.Join(err, p.startPBX(i), p.startAgents(i))
	}
	return err
}

func (p *plain) data() *lab.Lab     { return p.Lab }
func (p *plain) vips() []netip.Addr { return []netip.Addr{p.VIP(1), p.VIP(2)} }

func (p *plain) pbx(node int) *lab.Process { return p.pbxes[node] }

func (p *plain) startPBX(node int) (err error) {
	h := p.Node(node)
	p.pbxes[node], err = h.Start(lab.Spec{Name: "pbx", Path: binary, Args: []string{"demo-pbx", h.Name}})
	return err
}

func (p *plain) agents(node int) []*lab.Process { return p.daemons[node] }

func (p *plain) startAgents(node int) error {
	p.daemons[node] = nil
	for _, spec := range p.spec(node) {
		d, err := p.Node(node).Start(spec)
		if err != nil {
			return err
		}
		p.daemons[node] = append(p.daemons[node], d)
	}
	return nil
}

// rest checks only that the daemons run: nothing else can be asked of them. Which node
// has an address is seen from outside.
func (p *plain) rest(context.Context) error {
	for i, list := range p.daemons {
		for _, d := range list {
			select {
			case <-d.Done():
				return fmt.Errorf("a daemon of %s has ended: %s", p.Node(i).Name, d.LastWords())
			default:
			}
		}
	}
	return nil
}

func (p *plain) goHome() error { return nil }

func (p *plain) close() error {
	if p.Lab == nil {
		return nil // never built
	}
	return p.Close()
}

// signal sends a signal to the daemons' own processes, not to their children.
func (p *plain) signal(node int, sig syscall.Signal) (err error) {
	for _, d := range p.daemons[node] {
		err = errors.Join(err, syscall.Kill(d.Pid, sig))
	}
	return err
}

// debian returns the version of an installed package.
func debian(name string) string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", name).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
