package agent

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sipalive/config"
	"sipalive/elect"
	"sipalive/vip/fence"
)

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("home.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestNeedsRestart: a change that a running agent cannot take is refused, and the refusal
// names it.
func TestNeedsRestart(t *testing.T) {
	was := parse(t, home)
	for _, c := range []struct{ old, new, want string }{
		{`"pbx-dc1"`, `"pbx-dc2"`, `cluster is "pbx-dc2", the running agent's "pbx-dc1"`},
		{`"192.0.2.13"`, `"192.0.2.14"`, "the address of pbx3 is another"},
		{"address = \"192.0.2.13\"", "address = \"192.0.2.13\"\nholder = false", "holder of pbx3 is false, and was true"},
		{`"/etc/sipalive/key"`, "\"/etc/sipalive/key\"\nport = 7000", "port is 7000, and was 7946"},
		{`"/etc/sipalive/key"`, "\"/etc/sipalive/key\"\nfence = \"bpf\"", `fence is "bpf", and was "auto"`},
		{"[[role]]", "[control]\ngroup = \"wheel\"\n[[role]]", "[control] is another"},
		{`"192.0.2.12"`, `"192.0.2.14"`, ""},                                        // another node's address
		{"prefer = [\"pbx1\"]", "prefer = [\"pbx2\"]\nweight = 3", ""},              // a VIP
		{"[[role]]", "[timing]\nlease = \"2s\"\n[[role]]", ""},                      // timing
		{"address = \"192.0.2.13\"", "address = \"192.0.2.13\"\nvoter = false", ""}, // voter lists have their own rules
	} {
		is := parse(t, strings.Replace(home, c.old, c.new, 1))
		if got := needsRestart(was, is, was.Node("pbx3"), is.Node("pbx3")); got != c.want {
			t.Errorf("%s: got %q, want %q", c.new, got, c.want)
		}
	}
	if got := needsRestart(was, was, was.Node("pbx3"), was.Node("pbx2")); got != "this node is pbx2, and was pbx3" {
		t.Errorf("another node: %q", got)
	}
}

// TestReloadOutlivesItsAsker: a reload that the loop has got is carried out, and its
// result is told, even if its caller does not wait any more.
func TestReloadOutlivesItsAsker(t *testing.T) {
	r := newRecording(t)
	a := r.a
	a.Directory = openDirectory(t, t.TempDir())
	a.queries, a.ended = make(chan func(), 1), make(chan struct{})
	a.Load = func() (File, error) { return File{Config: a.Config(), Self: a.Self}, nil }
	if err := os.RemoveAll(a.Directory.Run()); err != nil { // so that the reload fails
		t.Fatal(err)
	}
	ctx, gone := context.WithCancel(context.Background())
	gone()
	go func() { (<-a.queries)() }()
	if _, err := a.Reload(ctx); err == nil || !strings.Contains(err.Error(), "leases.new: no such file or directory (nothing was changed)") {
		t.Errorf("got %v, want what became of it", err)
	}
}

// TestRefusedReloadFencesNothing: after a configuration was refused, the fence does not
// know its VIPs, as before.
func TestRefusedReloadFencesNothing(t *testing.T) {
	r, b := newBinding(t)
	was := netip.MustParseAddr(string(vip1))
	f, err := fence.Open(fence.Options{Mode: fence.BPF, VIPs: map[netip.Addr]int64{was: 0}, Record: filepath.Join(t.TempDir(), "fence")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close(true) })
	r.a.Fence = f
	more := netip.MustParseAddr("192.0.2.102")
	undo, err := b.fenceMore(newNames(parse(t, home+"[[vip]]\nname = \"vip2\"\naddress = \"192.0.2.102\"\n"), r.a.names()))
	if err != nil || f.Set(more, 0) != nil {
		t.Fatalf("%v; the fence does not know what is new", err)
	}
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	if f.Set(more, 0) == nil || b.fenced[more] {
		t.Error("what was refused is still fenced")
	}
	if err := f.Set(was, 0); err != nil || !b.fenced[was] {
		t.Errorf("what was there before is not fenced any more: %v", err)
	}
}

func TestDifferences(t *testing.T) {
	was := parse(t, home)
	more := home + "[[node]]\nname = \"pbx4\"\naddress = \"192.0.2.14\"\n[[vip]]\nname = \"vip2\"\naddress = \"192.0.2.102\"\n"
	for text, want := range map[string]string{
		home: "reloaded: nothing is different",
		more: "reloaded: node pbx4 added, VIP vip2 (192.0.2.102) added",
		strings.Replace(home, "192.0.2.101", "192.0.2.105", 1): "reloaded: VIP vip1 (192.0.2.105) added, VIP vip1 (192.0.2.101) removed",
		strings.Replace(home, `"cdr"`, `"billing"`, 1):         "reloaded: role billing added, role cdr removed",
		strings.Replace(home, "[\"pbx1\"]", "[\"pbx2\"]", 1):   "reloaded: settings changed",
	} {
		if got := differences(was, parse(t, text)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestNamesOfWhatLeft: the release actions of a VIP that has left still find its name. By
// then another VIP may have that name.
func TestNamesOfWhatLeft(t *testing.T) {
	first := newNames(parse(t, home), nil)
	second := newNames(parse(t, strings.Replace(home, "192.0.2.101", "192.0.2.105", 1)), first)
	if l := second.byID[vip1]; l == nil || !l.left || l.name != "vip1" {
		t.Errorf("what left is %+v", l)
	}
	if l := second.byName["vip1"]; l == nil || l.left || l.id != "192.0.2.105" {
		t.Errorf("vip1 is %+v", l)
	}
	if len(second.leases) != 2 {
		t.Errorf("%d VIPs and roles, want the two configured", len(second.leases))
	}
	if first.byID[vip1].left {
		t.Error("the names before were changed")
	}
	if l := newNames(parse(t, home), second).byID[vip1]; l.left {
		t.Error("what came back counts as gone")
	}
}

// TestProbesFollow: probers that stay the same go on. A changed prober of the same server
// begins with the old one's verdict. A new server counts as up until its state is known.
// A prober that has been removed tells nothing any more.
func TestProbesFollow(t *testing.T) {
	r := newRecording(t)
	r.a.events = make(chan elect.Event, 16)
	p := newProbes(r.a)
	r.a.probes = p
	before := p.all()
	if len(before) != 3 {
		t.Fatalf("%d probers, want one per node", len(before))
	}
	for _, b := range before {
		p.verdictOf(b.Prober, verdict{state: elect.SIPUp})
		<-r.a.events
	}
	two := "[sip]\npeer_interval = \"2s\"\n[[sip.target]]\nname = \"main\"\nuri = \"udp:5060\"\n[[sip.target]]\nname = \"more\"\nuri = \"udp:5070\"\n"
	p.take(parse(t, strings.Replace(home, "[[role]]", two+"[[role]]", 1)), nil)
	after := p.all()
	if len(after) != 6 {
		t.Fatalf("%d probers, want two per node", len(after))
	}
	for _, a := range after {
		own := a.target.Node == "pbx3" && a.target.Name == "main"
		if kept := a.Prober == before[2].Prober; kept != own {
			t.Errorf("%s of %s: kept %t", a.target.Name, a.target.Node, kept)
		}
	}
	for _, n := range []elect.Node{"pbx1", "pbx2", "pbx3"} {
		if s := p.stateOf(n).state; s != elect.SIPUp {
			t.Errorf("%s is %s, and was up", n, s)
		}
	}
	p.verdictOf(before[0].Prober, verdict{state: elect.SIPRefused}) // it has been replaced
	p.verdictOf(after[0].Prober, verdict{})                         // no verdict yet
	select {
	case ev := <-r.a.events:
		t.Errorf("told %+v", ev)
	default:
	}
	p.verdictOf(after[1].Prober, verdict{elect.SIPRefused, 5, 6})
	if ev := <-r.a.events; ev != (elect.Health{Node: "pbx1", SIP: elect.SIPRefused, Since: 5, Last: 6}) {
		t.Errorf("told %+v", ev)
	}
}

// TestWarningsKeepApart: a warning about one device hides none about another.
func TestWarningsKeepApart(t *testing.T) {
	r := newRecording(t)
	for range 3 {
		for _, dev := range []string{"eth0", "eth1"} {
			r.warn("fence vip1", &config.Error{File: dev, Text: "operation not permitted"})
		}
	}
	r.settle()
	if got := strings.Count(r.log.String(), "level=WARN"); got != 2 || !strings.Contains(r.log.String(), "eth1") {
		t.Errorf("%d warnings, want one per device:\n%s", got, r.log)
	}
	for i := range 2 * maxWarned {
		r.warn("x", &config.Error{File: "x", Line: i + 1, Text: "y"})
		r.settle()
	}
	if len(r.warned) > maxWarned {
		t.Errorf("%d warnings remembered", len(r.warned))
	}
}

// TestRetriesAreToldOnce: a move that fails again and again for the same reason is told
// once. An operator's move is told each time.
func TestRetriesAreToldOnce(t *testing.T) {
	r := newRecording(t)
	for range 5 {
		for _, c := range []elect.Cause{elect.CauseSIP, elect.CauseCheck, elect.CauseMove} {
			r.transitions([]elect.Transition{
				{Kind: elect.MoveStarted, VIP: vip1, Node: "pbx3", Successor: "pbx1", Epoch: 4, Cause: c},
				{Kind: elect.MoveFailed, VIP: vip1, Node: "pbx3", Epoch: 4, Cause: c, Text: "pbx1 refused for " + c.String()}})
		}
	}
	r.settle()
	for _, reason := range []string{"reason=sip", "reason=check"} {
		if got := strings.Count(r.log.String(), reason); got != 2 {
			t.Errorf("%s: %d lines of one failing move, want its start and its end:\n%s", reason, got, r.log)
		}
	}
	if got := strings.Count(r.log.String(), "reason=move"); got != 10 {
		t.Errorf("%d lines of an operator's five moves, want 10", got)
	}
}

// TestNothingFromItself: after a restart, a VIP that is where it was has no "from", nor
// has the event of a fit node.
func TestNothingFromItself(t *testing.T) {
	r := newRecording(t)
	r.transitions([]elect.Transition{{Kind: elect.HolderSeen, VIP: vip1, Node: "pbx1", Previous: "pbx1", Epoch: 3},
		{Kind: elect.NodeFit, Node: "pbx3"}, {Kind: elect.HolderSeen, VIP: vip1, Node: "pbx2", Previous: "pbx1", Epoch: 4}})
	r.settle()
	want := "level=INFO msg=\"holder seen\" node=pbx3 vip=vip1 to=pbx1 epoch=3\nlevel=INFO msg=\"node fit\" node=pbx3\n" +
		"level=INFO msg=\"holder seen\" node=pbx3 vip=vip1 from=pbx1 to=pbx2 epoch=4\n"
	if r.log.String() != want {
		t.Errorf("log:\n%swant:\n%s", r.log, want)
	}
}
