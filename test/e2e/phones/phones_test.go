package phones

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sipalive/test/lab"
)

const each = 40 // phones of a kind

// TestPhonesReconnect: the phones of a dead host are at the next holder within two
// seconds of the takeover, directly and behind a NAT that drops what is outside its
// window; the one that the keepalive does not reach stays deaf.
func TestPhonesReconnect(t *testing.T) {
	s := start(t)
	direct := s.Phone().Addr
	natted := direct.Next()
	strict, deaf := natted.Next(), natted.Next().Next()
	for _, a := range []netip.Addr{natted, strict, deaf} {
		s.must(s.Phone().Bind(a))
	}
	s.nft(s.Router(), fmt.Sprintf(`table ip phones {
	chain raw {
		type filter hook prerouting priority raw
		ip saddr %[1]s notrack
		ip daddr %[1]s notrack
	}
	chain nat {
		type nat hook postrouting priority srcnat
		ip saddr %[2]s masquerade
	}
}
`, direct, natted))
	s.nft(s.Phone(), fmt.Sprintf(`table ip phones {
	chain in {
		type filter hook input priority 0
		ip saddr %[1]s ip daddr %[2]s ip length 40 drop
		ip saddr %[1]s ip daddr %[3]s ip length 40 tcp flags & rst == 0 drop
	}
}
`, s.VIPs[0], deaf, strict)) // what has no TCP options: keepalives and resets, or keepalives alone

	kinds := map[string][]*phone{"direct": s.phones(each, direct), "behind NAT": s.phones(each, natted), "strict about timestamps": s.phones(each, strict)}
	deafOnes := s.phones(1, deaf)
	s.told(3*each + 1)

	died := lab.Now()
	s.must(s.Cut(s.Node(0)))
	taken := s.taken("pbx1")
	t.Logf("taken over %v after the host died", (taken - died).Round(time.Millisecond))
	s.back(kinds, died, taken)

	s.must(s.Restore(s.Node(0)))
	s.told(3 * each)
	from := s.holder()
	to := "pbx1"
	s.await("pbx1 fit", func(ctx context.Context) error { return s.WaitHeld(ctx, 0, "pbx1", "pbx2", "pbx3") })
	kinds["connected a moment ago"] = s.phones(each, natted)
	at := lab.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := s.Node(0).Run(ctx, binary, "move", "--run-dir", s.RunDir(0), "vip1", to)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("moved from %s to %s", from, to)
	s.back(kinds, at, at)

	if deafOnes[0].registered(died) != 0 {
		t.Errorf("a phone that got no keepalive is back: this test sees something else")
	}
}

// told waits until the holder has told the others of n phones, in a round that began
// after now.
func (s *site) told(n int) {
	s.t.Helper()
	i := s.Index(s.holder())
	count := func(ctx context.Context) (uint64, error) {
		st, err := s.Client(i).Status(ctx)
		if err != nil {
			return 0, err
		}
		return st.Counters["phones_shared"], nil
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	before, err := count(ctx)
	s.must(err)
	s.await("the holder's word of its phones", func(ctx context.Context) error {
		now, err := count(ctx)
		if err != nil {
			return err
		}
		if now-before < uint64(2*n) { // one of the rounds may have begun before
			return fmt.Errorf("%d told of since %d, want %d twice", now, before, n)
		}
		return nil
	})
}

// holder is who holds the VIP, as the second node has it.
func (s *site) holder() (name string) {
	s.t.Helper()
	s.await("a holder", func(ctx context.Context) (err error) {
		if name, err = s.Holder(ctx, 1, 0); err == nil && name == "" {
			err = fmt.Errorf("nobody")
		}
		return err
	})
	return name
}

// taken waits until one of the other nodes says that it holds the VIP, and says when
// that was.
func (s *site) taken(before string) time.Duration {
	s.t.Helper()
	s.await("another holder", func(ctx context.Context) error {
		for i, h := range s.Nodes() {
			if h.Name == before {
				continue
			}
			if name, err := s.Holder(ctx, i, 0); err != nil || name == h.Name {
				return err
			}
		}
		return fmt.Errorf("none")
	})
	return lab.Now()
}

// back waits until every phone has registered after a moment, and judges how long
// after the takeover that was.
func (s *site) back(kinds map[string][]*phone, after, taken time.Duration) {
	s.t.Helper()
	for kind, all := range kinds {
		var took []time.Duration
		for i, p := range all {
			s.await(fmt.Sprintf("phone %d %s", i, kind), func(context.Context) error {
				if p.registered(after) == 0 {
					return fmt.Errorf("not registered since")
				}
				return nil
			})
			took = append(took, p.registered(after)-taken)
		}
		slices.Sort(took)
		worst := took[len(took)-1]
		s.t.Logf("%s: %d phones registered again, median %v, last %v after the takeover", kind, len(took),
			took[len(took)/2].Round(time.Millisecond), worst.Round(time.Millisecond))
		if worst > 2*time.Second {
			s.t.Errorf("%s: the last phone was back after %v, promised within 2 s", kind, worst)
		}
	}
}
