package elect_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sipalive/elect"
	"sipalive/test/sim"
)

var update = flag.Bool("update", false, "rewrite the expected traces of testdata/*.script")

const separator = "----\n"

// TestScripts plays every script of testdata and compares its trace with the one in the
// same file. A script is directives, one per line, then "----", then the trace. The
// directives are the cases in (*script).do and what it calls.
func TestScripts(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.script")
	if len(files) < 25 {
		t.Fatalf("%d scripts, want at least 25", len(files))
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".script"), func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			directives, want, _ := strings.Cut(string(b), separator)
			got := play(t, directives)
			if *update {
				if err := os.WriteFile(f, []byte(directives+separator+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("trace differs (-update rewrites it)\n%s", firstDifference(got, want))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			return fmt.Sprintf("line %d\n got:  %s\n want: %s", i+1, line(g, i), line(w, i))
		}
	}
	return ""
}

func line(l []string, i int) string {
	if i < len(l) {
		return l[i]
	}
	return "(nothing)"
}

// script is one cluster that a script is played on.
type script struct {
	t       *testing.T
	cfg     elect.Config
	w       *sim.World
	out     strings.Builder
	packets bool
	quiet   bool
	gateway string
}

func play(t *testing.T, directives string) string {
	s := &script{t: t, cfg: elect.Config{
		Heartbeat: 200 * time.Millisecond, Lease: time.Second, HoldDown: 10 * time.Second, Settle: 5 * time.Second,
		Stagger: 50 * time.Millisecond, Exclude: time.Minute, FailbackAfter: time.Minute, PrepareTimeout: 5 * time.Second, Digest: 1,
	}}
	for i, l := range strings.Split(directives, "\n") {
		l, _, _ = strings.Cut(l, "#")
		if f := strings.Fields(l); len(f) > 0 {
			if err := s.do(f); err != nil {
				t.Fatalf("line %d: %s: %v", i+1, l, err)
			}
		}
	}
	for _, v := range s.w.Judge.Violations {
		t.Errorf("violation at %s", v)
	}
	return s.out.String()
}

func (s *script) do(f []string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	if s.w == nil && s.configure(f) {
		return nil
	}
	if s.w == nil {
		s.build()
	}
	switch f[0] {
	case "run", "until":
		return s.pass(f)
	case "packets", "quiet":
		s.packets, s.quiet = f[0] == "packets" && f[1] == "on", f[0] == "quiet" && f[1] == "on"
		return nil
	case "start":
		s.forAll(f[1:], (*sim.Node).Start)
		return nil
	case "loss", "stragglers":
		var p float64
		_, err = fmt.Sscan(f[1], &p)
		if f[0] == "loss" {
			s.w.Net.Loss = p
		} else {
			s.w.Net.Slow, s.w.Net.SlowBy = p, 2*time.Second
		}
		return err
	}
	s.note(strings.Join(f, " "))
	if s.network(f) || s.host(f) || s.command(f) || s.locks(f) || s.show(f) {
		return nil
	}
	return fmt.Errorf("no such directive")
}

// configure takes the directives that have to come before the first action.
func (s *script) configure(f []string) bool {
	switch f[0] {
	case "nodes": // a b c:witness d:nonvoter e:capacity=2
		for _, n := range f[1:] {
			name, as, _ := strings.Cut(n, ":")
			s.cfg.Nodes = append(s.cfg.Nodes, elect.NodeConfig{Name: elect.Node(name), Voter: as != "nonvoter", Holder: as != "witness", Capacity: 1})
		}
	case "vip": // vip1 a b: prefers a, then b
		v := elect.VIPConfig{ID: elect.VIPID(f[1]), Name: f[1], Weight: 1, Announced: true, Relayed: true}
		for _, p := range f[2:] {
			v.Prefer = append(v.Prefer, elect.Node(p))
		}
		s.cfg.VIPs = append(s.cfg.VIPs, v)
	case "role": // cdr spare
		s.cfg.VIPs = append(s.cfg.VIPs, elect.VIPConfig{ID: elect.RoleID(f[1]), Name: f[1], Role: true, PreferSpare: slices.Contains(f, "spare")})
	case "gateway": // relays | silent: every node has one, and survivor = "auto"
		s.gateway = f[1]
		s.cfg.Survivor, s.cfg.SurvivorAfter = elect.SurvivorAuto, 3*time.Second
	case "lock": // db
		s.cfg.VIPs = append(s.cfg.VIPs, elect.VIPConfig{ID: elect.LockID(f[1]), Name: f[1], Role: true, Lock: true})
	case "set":
		s.set(f[1], f[2])
	default:
		return false
	}
	return true
}

func (s *script) set(key, value string) {
	if key == "survivor" {
		s.cfg.Survivor = map[string]elect.SurvivorMode{"auto": elect.SurvivorAuto, "always": elect.SurvivorAlways}[value]
		return
	}
	if key == "failback" {
		s.cfg.FailbackAuto = value == "auto"
		return
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		panic(err)
	}
	*map[string]*time.Duration{"heartbeat": &s.cfg.Heartbeat, "lease": &s.cfg.Lease, "hold_down": &s.cfg.HoldDown, "settle": &s.cfg.Settle,
		"stagger": &s.cfg.Stagger, "exclude": &s.cfg.Exclude, "failback_after": &s.cfg.FailbackAfter}[key] = d
}

func (s *script) build() {
	s.w = sim.New(1, s.cfg)
	if s.gateway != "" {
		s.w.AddRouter(s.gateway == "relays", 1)
	}
	s.w.Trace = func(l string) {
		text := l[14:]
		if s.quiet || strings.HasPrefix(text, "  ") && (!s.packets || strings.Contains(text, "heartbeat") || strings.Contains(text, "elect.")) {
			return
		}
		fmt.Fprintf(&s.out, "%11.4fs %s\n", time.Duration(s.w.Now).Seconds(), text)
	}
}

func (s *script) note(text string) {
	fmt.Fprintf(&s.out, "%11.4fs ---- %s\n", time.Duration(s.w.Now).Seconds(), text)
}

func (s *script) pass(f []string) error {
	if f[0] == "until" { // until held: until every VIP is held
		if !s.w.RunUntil(time.Minute, s.w.AllHeld) {
			return fmt.Errorf("not within a minute")
		}
		return nil
	}
	d, err := time.ParseDuration(f[1])
	s.w.Run(d)
	return err
}

func (s *script) node(name string) *sim.Node { return s.w.Node(elect.Node(name)) }

func (s *script) forAll(names []string, f func(*sim.Node)) {
	for _, n := range s.w.Nodes {
		if len(names) == 0 || slices.Contains(names, string(n.Name)) {
			f(n)
		}
	}
}

func (s *script) network(f []string) bool {
	switch f[0] {
	case "cut", "mend": // a b: both ways
		a, b := s.node(f[1]), s.node(f[2])
		wire(a, b, f[0] == "cut")
		wire(b, a, f[0] == "cut")
	case "lose", "pass": // a b: packets from a to b
		wire(s.node(f[1]), s.node(f[2]), f[0] == "lose")
	case "isolate", "rejoin":
		a := s.node(f[1])
		for _, b := range s.w.Nodes {
			if a != b {
				wire(a, b, f[0] == "isolate")
				wire(b, a, f[0] == "isolate")
			}
		}
	case "router": // down | up | loses 0.2
		s.w.Router.Down = f[1] == "down"
		if f[1] == "loses" {
			fmt.Sscan(f[2], &s.w.Router.Loss)
		}
	case "unplug", "plug": // a: cuts a off from the router
		s.w.Router.Unplug(s.node(f[1]), f[0] == "unplug")
	case "wall", "unwall": // a: a firewall stops every agent's packet
		s.node(f[1]).Wall(f[0] == "wall")
	default:
		return false
	}
	return true
}

func wire(a, b *sim.Node, cut bool) {
	if cut {
		a.Cut(b)
	} else {
		a.Uncut(b)
	}
}

func (s *script) host(f []string) bool {
	n := func() *sim.Node { return s.node(f[1]) }
	on := func() bool { return f[len(f)-1] == "on" }
	switch f[0] {
	case "kill":
		n().Kill()
	case "restart":
		n().Kill()
		n().Start()
	case "forget": // a: loses its runtime directory
		n().Forget()
	case "poweroff":
		n().PowerOff()
	case "poweron":
		n().PowerOn()
	case "freeze", "thaw": // a: pauses a's agent, or lets it go on
		if f[1] == "at" {
			return false // "freeze at" and "thaw at" are commands
		}
		if f[0] == "freeze" {
			n().Pause()
		} else {
			n().Resume()
		}
	case "crash-storing":
		n().CrashOnStore = true
	case "unstorable":
		n().StoreFails = on()
	case "unbindable":
		n().HalfBinds = f[2] == "stuck"
		n().BindFails = on() || n().HalfBinds
	case "unverifiable":
		n().VerifyFails = on()
	case "prepare": // a 300ms | a fails
		if d, err := time.ParseDuration(f[2]); err == nil {
			n().PrepareTook = d
		} else {
			n().PrepareFail = strings.Join(f[2:], " ")
		}
	case "release": // a 3s: a role's release actions
		n().ReleaseTook, _ = time.ParseDuration(f[2])
	case "lease": // a 3s: from its next start
		n().Config.Lease, _ = time.ParseDuration(f[2])
	case "voters": // a = a b c: its file's list, from its next start
		n().Config.Nodes = slices.Clone(n().Config.Nodes)
		for i, c := range n().Config.Nodes {
			n().Config.Nodes[i].Voter = slices.Contains(f[3:], string(c.Name))
		}
	case "file": // a = vip1 vip2: the VIPs of its file, from its next start or reload
		n().Config.VIPs = slices.DeleteFunc(slices.Clone(s.cfg.VIPs), func(v elect.VIPConfig) bool { return !slices.Contains(f[3:], v.Name) })
	case "members": // a = a c: the nodes of its file
		n().Config.Nodes = slices.DeleteFunc(slices.Clone(s.cfg.Nodes), func(c elect.NodeConfig) bool { return !slices.Contains(f[3:], string(c.Name)) })
	case "reload":
		n().Reload()
	case "reinstall": // a: loses its state directory
		n().Durable = nil
	case "pbx": // a up|silent|refused
		n().SetPBX(map[string]elect.SIPState{"up": elect.SIPUp, "silent": elect.SIPSilent, "refused": elect.SIPRefused}[f[2]])
	case "target": // what the targets on a VIP say
		st := n().Machine.Status()
		i := slices.IndexFunc(st.VIPs, func(v elect.VIPStatus) bool { return v.ID == elect.VIPID(f[2]) })
		n().Step(elect.Verified{VIP: st.VIPs[i].ID, Epoch: st.VIPs[i].Epoch, OK: f[3] == "answers", Standing: true})
	case "gateway": // a vip1 answers: the router answers a on vip1's link
		n().Step(elect.Gateway{VIP: elect.VIPID(f[2]),
			State: map[string]elect.GatewayState{"unknown": elect.GatewayUnknown, "answers": elect.GatewayAnswers, "silent": elect.GatewaySilent}[f[3]]})
	case "blind": // a b on: a does not hear b's PBX
		n().SetBlind(s.node(f[2]), on())
	case "sees": // a's verdict about b's PBX, set by hand
		n().See(s.node(f[2]), map[string]elect.SIPState{"suspect": elect.SIPSuspect, "silent": elect.SIPSilent, "unready": elect.SIPUnready, "up": elect.SIPUp}[f[3]])
	default:
		return false
	}
	return true
}

func (s *script) command(f []string) bool {
	kinds := map[string]elect.CommandKind{"move": elect.CommandMove, "failback": elect.CommandFailback, "drain": elect.CommandDrain,
		"undrain": elect.CommandUndrain, "stop": elect.CommandStop, "adopt": elect.CommandAdopt, "freeze": elect.CommandFreeze, "thaw": elect.CommandThaw}
	k, ok := kinds[f[0]]
	if !ok || f[1] != "at" {
		return false
	}
	c := elect.Command{Kind: k} // move at a vip1 b; drain at a b; stop at a; freeze at a 30s b
	rest := f[3:]
	if k == elect.CommandFreeze {
		c.For, _ = time.ParseDuration(rest[0])
		rest = rest[1:]
	}
	if k == elect.CommandMove || k == elect.CommandFailback && len(rest) > 0 {
		c.VIP, rest = elect.VIPID(rest[0]), rest[1:]
	}
	if len(rest) > 0 {
		c.Node = elect.Node(rest[0])
	}
	s.node(f[2]).Do(c)
	return true
}

// locks are the clients of locks: wants a db | wants a db 20s | done a db | dies a db |
// recovered a db.
func (s *script) locks(f []string) bool {
	do := map[string]func(*sim.Node, int){"done": (*sim.Node).EndLock, "dies": (*sim.Node).LeaveLock, "recovered": (*sim.Node).OverLock}
	do["wants"] = func(n *sim.Node, i int) {
		keep := time.Duration(0)
		if len(f) > 3 {
			keep, _ = time.ParseDuration(f[3])
		}
		n.WantLock(i, keep)
	}
	act := do[f[0]]
	if act == nil {
		return false
	}
	act(s.node(f[1]), slices.IndexFunc(s.cfg.VIPs, func(v elect.VIPConfig) bool { return v.Name == f[2] }))
	return true
}

func (s *script) show(f []string) bool {
	n := func() *sim.Node { return s.node(f[1]) }
	switch f[0] {
	case "holders":
		for _, v := range s.cfg.VIPs {
			fmt.Fprintf(&s.out, "             %s: %v\n", v.Name, s.w.Holders(v.ID))
		}
	case "status":
		st := n().Machine.Status()
		for _, v := range st.VIPs {
			fmt.Fprintf(&s.out, "             %s %s %s epoch %d: %s\n", v.ID, v.State, v.Holder, v.Epoch, v.Reason)
		}
		for _, p := range st.Nodes {
			fmt.Fprintf(&s.out, "             %s alive %v fit %v drained %v held down %v %s\n", p.Name, p.Alive, p.Fit, p.Drained, p.HeldDown, p.Unfit)
		}
	case "locks":
		for _, l := range n().Machine.Locks() {
			fmt.Fprintf(&s.out, "             %s at %q epoch %d wanted %v kept for %q\n", l.ID, l.Holder, l.Epoch, l.Wanted, l.KeptFor)
		}
	case "lists":
		st := n().Machine.Status()
		fmt.Fprintf(&s.out, "             file %v active %v waiting %q\n", st.Lists.File, st.Lists.Active, st.Waiting)
	case "plan":
		for _, p := range n().Machine.Plan(nodes(f[2:])...) {
			fmt.Fprintf(&s.out, "             %s: %s\n", p.Name, p.Reason)
		}
	case "disk": // a: what its runtime directory says
		for _, v := range s.cfg.VIPs {
			r := n().Runtime.VIPs[v.ID]
			fmt.Fprintf(&s.out, "             %s grant %s barred %d given up %d asked %d\n", v.Name, grant(r.Grant), r.Barred, r.GivenUp, r.Asked)
		}
	case "answers":
		fmt.Fprintf(&s.out, "             %+v\n", n().Answers)
	default:
		return false
	}
	return true
}

func grant(g *elect.Grant) string {
	if g == nil {
		return "none"
	}
	return fmt.Sprintf("%s/%d for %s", g.Holder, g.Epoch, g.Lease)
}

func nodes(names []string) (out []elect.Node) {
	for _, n := range names {
		out = append(out, elect.Node(n))
	}
	return out
}
