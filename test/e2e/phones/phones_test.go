package phones

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// promised is the longest time from the takeover until a phone is back.
const promised = 2 * time.Second

// TestPhonesReconnect: the phones of a dead host reach the next holder within two seconds
// of the takeover, whatever they speak and whatever is on their way. Only the phone that
// no keepalive reaches stays deaf. After a planned move, phones that had just connected
// come back too.
func TestPhonesReconnect(t *testing.T) {
	s := start(t)
	const each = 40
	direct := s.Phone().Addr
	natted := direct.Next()
	strict, deaf := natted.Next(), natted.Next().Next()
	for _, a := range []netip.Addr{natted, strict, deaf} {
		s.must(s.Phone().Bind(a))
	}
	s.onTheWay(direct, natted, strict, deaf)
	kinds := []*kind{
		{name: "direct", n: each, from: direct},
		{name: "behind NAT", n: each, from: natted},
		{name: "TLS", n: each, from: direct, tls: true},
		{name: "TLS behind NAT", n: each, from: natted, tls: true},
		{name: "IPv6", n: each, from: s.Phone().Addr6, vip: 1},
		{name: "TLS over IPv6", n: each, from: s.Phone().Addr6, vip: 1, tls: true},
		{name: "from a port of its own", n: each, from: direct, fixed: 20000},
		{name: "from a port of its own behind NAT", n: each, from: natted, fixed: 21000},
		{name: "strict about timestamps", n: each, from: strict},
	}
	all := map[*kind][]*phone{}
	for _, k := range kinds {
		all[k] = s.phones(k)
	}
	deafOne := s.phones(&kind{name: "deaf", n: 1, from: deaf})[0]
	s.sippServers()
	s.sippPhones()
	s.told(uint64(len(kinds)*each) + 3)

	died := lab.Now()
	s.must(s.Cut(s.Node(0)))
	taken := []time.Duration{s.held(0, "pbx1"), s.held(1, "pbx1")}
	t.Logf("taken over %v and %v after the host died", (taken[0] - died).Round(time.Millisecond), (taken[1] - died).Round(time.Millisecond))
	for _, port := range []uint16{sippPort, sippNATPort} {
		s.judge(fmt.Sprintf("SIPp to port %d", port), []time.Duration{s.sippAt(s.holder(0), port) - taken[0]})
	}
	s.back(all, died, taken)

	s.must(s.Restore(s.Node(0)))
	s.atRest()
	s.told(uint64(len(kinds) * each))
	justNow := &kind{name: "connected a moment ago", n: each, from: natted}
	all[justNow] = s.phones(justNow)
	at := lab.Now()
	s.move("vip1", "pbx1")
	s.move("vip2", "pbx1")
	s.back(all, at, []time.Duration{at, at})

	if deafOne.registered(died) != 0 {
		t.Errorf("a phone that got no keepalive is back: this test sees something else")
	}
}

// onTheWay sets up the rules on the phones' way. The router tracks no connection of the
// direct phones, and masquerades the others. Some phones drop packets without TCP
// options: keepalives and resets of either kind, or only keepalives.
func (s *site) onTheWay(direct, natted, strict, deaf netip.Addr) {
	s.t.Helper()
	s.nft(s.Router(), fmt.Sprintf(`table ip phones {
	chain raw {
		type filter hook prerouting priority raw
		ip saddr %[1]s tcp dport != %[3]d notrack
		ip daddr %[1]s tcp sport != %[3]d notrack
	}
	chain nat {
		type nat hook postrouting priority srcnat
		ip saddr %[2]s masquerade
		tcp dport %[3]d masquerade
	}
}
`, direct, natted, sippNATPort))
	s.nft(s.Phone(), fmt.Sprintf(`table ip phones {
	chain in {
		type filter hook input priority 0
		ip saddr %[1]s ip daddr %[2]s ip length 40 drop
		ip saddr %[1]s ip daddr %[3]s ip length 40 tcp flags & rst == 0 drop
	}
}
`, s.VIPs[0], deaf, strict))
}

// told waits until the holders have told the other nodes about n phones, in a round that
// began after now. A pause separates two rounds.
func (s *site) told(n uint64) {
	s.t.Helper()
	const pause = 200 * time.Millisecond
	last, at, paused := s.shared(), lab.Now(), false
	s.await("the holders' word of their phones", func(context.Context) error {
		now := s.shared()
		switch {
		case paused && now-last >= n:
			return nil
		case !paused && now != last:
			last, at = now, lab.Now()
		case lab.Now()-at > pause:
			paused = true
		}
		return fmt.Errorf("%d told of since %d, want %d", now, last, n)
	})
}

// shared returns how many phones all nodes have told each other about.
func (s *site) shared() (n uint64) {
	s.t.Helper()
	for i := range s.Nodes() {
		n += s.counters(i)["phones_shared"]
	}
	return n
}

func (s *site) counters(i int) map[string]uint64 {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	st, err := s.Client(i).Status(ctx)
	s.must(err)
	return st.Counters
}

// back waits until every phone has registered after a moment, and judges how long after
// the takeover that was.
func (s *site) back(all map[*kind][]*phone, after time.Duration, taken []time.Duration) {
	s.t.Helper()
	for k, phones := range all {
		var took []time.Duration
		for i, p := range phones {
			s.await(fmt.Sprintf("phone %d (%s)", i, k.name), func(context.Context) error {
				if p.registered(after) == 0 {
					return fmt.Errorf("not registered since")
				}
				return nil
			})
			took = append(took, p.registered(after)-taken[k.vip])
		}
		s.judge(k.name, took)
	}
}

// judge checks how long phones took from the takeover to their registration.
func (s *site) judge(name string, took []time.Duration) {
	s.t.Helper()
	slices.Sort(took)
	worst := took[len(took)-1]
	s.t.Logf("%-35s %3d registered again, median %v, last %v after the takeover", name, len(took),
		took[len(took)/2].Round(time.Millisecond), worst.Round(time.Millisecond))
	if worst > promised {
		s.t.Errorf("%s: the last phone was back after %v, promised within %v", name, worst, promised)
	}
}
