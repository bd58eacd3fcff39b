package chaos

import (
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"sipalive/test/lab"
)

var (
	vip  = netip.MustParseAddr("10.77.0.101")
	mac1 = net.HardwareAddr{2, 0, 10, 77, 0, 11}
	mac2 = net.HardwareAddr{2, 0, 10, 77, 0, 12}
)

const (
	ms = time.Millisecond
	s  = time.Second
)

// clean is the evidence of one proper takeover: pbx1 until 5 s, pbx2 from 5.1 s.
func clean() evidence {
	e := evidence{vip: "vip1", addr: vip,
		tenures: []lab.Tenure{{Host: "pbx1", MAC: mac1, From: 1 * s, To: 5 * s}, {Host: "pbx2", MAC: mac2, From: 5100 * ms, To: 9 * s}}}
	for at := 1 * s; at < 9*s; at += 2 * ms {
		p := lab.Ping{Sent: at, RTT: ms / 2, Server: "pbx1", Status: 200}
		if at > 5*s {
			p.Server = "pbx2"
		}
		if at > 4990*ms && at < 5100*ms {
			p = lab.Ping{Sent: at}
		}
		e.pings = append(e.pings, p)
	}
	for at := 1 * s; at < 9*s; at += 20 * ms {
		first := at < 5*s
		epoch := uint64(1)
		if at > 5050*ms {
			epoch = 2
		}
		e.claims = append(e.claims, said("pbx1", 11, first, epoch, at), said("pbx2", 12, epoch == 2, epoch, at))
	}
	return e
}

func said(node string, process int, holds bool, epoch uint64, at time.Duration) claim {
	return claim{node, process, holds, epoch, at, at + ms}
}

func answered(at time.Duration) lab.Violation {
	return lab.Violation{VIP: vip, Asked: at, Answers: []lab.ARPAnswer{{At: at + ms, MAC: mac1, Host: "pbx1"}, {At: at + ms, MAC: mac2, Host: "pbx2"}}}
}

// TestPlanted: each check finds the violation planted for it, and no other check does.
func TestPlanted(t *testing.T) {
	both := lab.Overlap{Addr: vip, Hosts: []string{"pbx1", "pbx2"}, From: 4 * s, To: 4400 * ms}
	for _, c := range []struct {
		name, want string // "" if nothing is wrong
		plant      func(*evidence)
	}{
		{"nothing", "", func(*evidence) {}},
		{"two questions in a row answered twice", "two holders", func(e *evidence) {
			e.violations = []lab.Violation{answered(4 * s), answered(4010 * ms)}
		}},
		{"one question answered twice, both bound", "two holders", func(e *evidence) {
			e.violations, e.overlaps = []lab.Violation{answered(4100 * ms)}, []lab.Overlap{both}
			e.absent = []absence{{"pbx1", 3 * s, 5 * s}}
		}},
		{"copies of one question apart", "", func(e *evidence) { e.violations = []lab.Violation{answered(5050 * ms)} }},
		{"another VIP's", "", func(e *evidence) {
			v := answered(4 * s)
			v.VIP = vip.Next()
			e.violations = []lab.Violation{v, v}
		}},
		{"both have the address, both agents run", "two addresses", func(e *evidence) { e.overlaps = []lab.Overlap{both} }},
		{"both have the address to the end", "two addresses", func(e *evidence) {
			e.overlaps = []lab.Overlap{both}
			e.overlaps[0].To = 0
		}},
		{"both have the address, one's agent is killed", "", func(e *evidence) {
			e.overlaps, e.absent = []lab.Overlap{both}, []absence{{"pbx1", 3 * s, 5 * s}}
		}},
		{"both have the address, a third's agent is killed", "two addresses", func(e *evidence) {
			e.overlaps, e.absent = []lab.Overlap{both}, []absence{{"pbx3", 3 * s, 5 * s}}
		}},
		{"SIP answered by another than ARP", "wrong answer", func(e *evidence) { e.pings[1000].Server = "pbx3" }},
		{"ARP answered by another than who holds", "not leased", func(e *evidence) {
			e.tenures[0].To, e.tenures[1].From = 4*s, 4100*ms
			for i, p := range e.pings {
				if p.Sent > 3990*ms && p.Sent < 5100*ms {
					e.pings[i].RTT = 0
				}
			}
		}},
		{"one epoch at two nodes", "lease history", func(e *evidence) { e.say(said("pbx3", 13, true, 2, 9500*ms)) }},
		{"an epoch that falls", "lease history", func(e *evidence) { e.say(said("pbx3", 13, true, 1, 9500*ms)) }},
		{"the old holder holds still", "lease history", func(e *evidence) { e.say(said("pbx1", 11, true, 1, 9500*ms)) }},
		{"an epoch held again after it was given up", "lease history", func(e *evidence) {
			e.say(said("pbx2", 12, false, 2, 9500*ms), said("pbx2", 12, true, 2, 9600*ms))
		}},
		{"a restarted agent asks on", "", func(e *evidence) {
			e.say(said("pbx2", 22, false, 0, 9500*ms), said("pbx2", 22, true, 2, 9600*ms))
		}},
		{"an epoch raised in place", "", func(e *evidence) { e.say(said("pbx2", 12, true, 3, 9500*ms)) }},
		{"a late answer of a frozen agent", "", func(e *evidence) {
			e.say(claim{"pbx1", 11, true, 1, 4990 * ms, 9500 * ms})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := clean()
			c.plant(&e)
			wrong, _ := judge(e)
			if c.want == "" && len(wrong) > 0 {
				t.Errorf("wrong: %q, want nothing", wrong)
			}
			if c.want != "" && len(wrong) == 0 {
				t.Errorf("nothing wrong, want %q", c.want)
			}
			for _, w := range wrong {
				if !strings.HasPrefix(w, c.want) {
					t.Errorf("wrong: %q, want %q alone", w, c.want)
				}
			}
		})
	}
}

func (e *evidence) say(c ...claim) { e.claims = append(e.claims, c...) }

// TestPlantedLeft: an orphan and a touched foreign address are found.
func TestPlantedLeft(t *testing.T) {
	foreign := netip.MustParseAddr("10.77.0.151")
	up := lab.AddressEvent{Host: "pbx1", Addr: foreign, Bound: true}
	for _, c := range []struct {
		name   string
		events []lab.AddressEvent
		want   []string
	}{
		{"nothing", []lab.AddressEvent{up, {Host: "pbx2", Addr: vip, Bound: true}, {Host: "pbx2", Addr: vip}}, nil},
		{"orphan", []lab.AddressEvent{up, {Host: "pbx2", Addr: vip, Bound: true}}, []string{"orphan: 10.77.0.101 at pbx2 after every agent has ended"}},
		{"removed and put back", []lab.AddressEvent{up, {Host: "pbx1", Addr: foreign, At: s}, up}, []string{"foreign address: 10.77.0.151 at pbx1 was removed at 1s"}},
		{"never there", nil, []string{"foreign address: 10.77.0.151 at pbx1 is gone"}},
	} {
		if wrong := left(c.events, []netip.Addr{vip}, map[string]netip.Addr{"pbx1": foreign}); !reflect.DeepEqual(wrong, c.want) {
			t.Errorf("%s: %q, want %q", c.name, wrong, c.want)
		}
	}
}

// TestPlantedSecondHolder makes a second holder by hand on a real cluster, with that
// node's agent killed and no fence. The ARP questions and the order of the address events
// must both show it.
func TestPlantedSecondHolder(t *testing.T) {
	r := begin(t, "fence = \"none\"\n")
	holder := ""
	must(t, lab.WaitFor(t.Context(), "an ARP answer", func() error {
		holder, _ = r.arp.Last(r.VIPs[0])
		if holder == "" {
			return net.ErrClosed
		}
		return nil
	}))
	second := (r.Index(holder) + 1) % nodes
	r.Agent(second).Kill()
	must(t, r.Node(second).Bind(r.VIPs[0]))
	time.Sleep(500 * ms) // how long both hold
	must(t, r.Node(second).Unbind(r.VIPs[0]))
	r.stopPolls()
	r.work.Wait()
	found := map[string]bool{}
	wrong, _ := judge(r.evidence(t, 0))
	for _, w := range wrong {
		name, _, _ := strings.Cut(w, ":")
		found[name] = true
	}
	if !found["two holders"] || !found["two addresses"] {
		t.Errorf("found %q, want two holders and two addresses", wrong)
	}
}

// TestSchedule: a seed determines the schedule, every kind of fault occurs, and each
// thing is broken in only one way at a time.
func TestSchedule(t *testing.T) {
	list := schedule(7, 10*time.Minute)
	if !reflect.DeepEqual(list, schedule(7, 10*time.Minute)) || reflect.DeepEqual(list, schedule(8, 10*time.Minute)) {
		t.Error("a seed does not say what happens")
	}
	kinds, together := map[kind]bool{}, 0
	until := map[string]time.Duration{}
	for i, f := range list {
		kinds[f.Kind] = true
		if until[f.thing()] > f.From {
			t.Errorf("%v at %v: broken already", f, f.From)
		}
		until[f.thing()] = f.To
		if i > 0 && list[i-1].To > f.From {
			together++
		}
	}
	if len(kinds) != len(lasts) || together < len(list)/4 {
		t.Errorf("%d kinds of %d, %d of %d faults overlap the one before", len(kinds), len(lasts), together, len(list))
	}
}
