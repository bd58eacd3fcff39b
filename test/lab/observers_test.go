package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestARPObserverFindsTwoHolders(t *testing.T) {
	l := newLab(t, Options{})
	vip, other := l.VIP(1), l.VIP(2)
	o, err := l.ObserveARP(0, vip, other)
	must(t, err)
	rounds := func(n int) {
		t.Helper()
		begin := o.Asked()
		within(t, 10*time.Second, fmt.Sprintf("%d rounds of questions", n), func() error {
			if o.Asked() < begin+n {
				return fmt.Errorf("%d rounds", o.Asked()-begin)
			}
			return nil
		})
	}
	holds := func(host string) {
		t.Helper()
		begin := Now()
		within(t, 10*time.Second, host+" to answer for the VIP", func() error {
			if who, at := o.Last(vip); who != host || at < begin {
				return fmt.Errorf("%q at %v", who, at)
			}
			return nil
		})
	}

	rounds(5)
	if host, _ := o.Last(vip); host != "" {
		t.Fatalf("%s answers for an address nobody has", host)
	}
	// One holder at a time, moved back and forth: no violation.
	for i := range 6 {
		must(t, l.Node(i%2).Bind(vip))
		holds(l.Node(i % 2).Name)
		must(t, l.Node(i%2).Unbind(vip))
	}
	if v := o.Violations(); len(v) > 0 {
		t.Fatalf("violation with one holder: %v", v)
	}
	tenures := o.Tenures(vip)
	if len(tenures) != 6 || tenures[5].Host != "pbx2" || tenures[5].Answers == 0 {
		t.Errorf("tenures %+v, want 6, the last of pbx2", tenures)
	}
	for i := 1; i < len(tenures); i++ {
		if tenures[i].From <= tenures[i-1].To {
			t.Errorf("tenure %d begins at %v, before the last one's end %v", i, tenures[i].From, tenures[i-1].To)
		}
	}

	whole := Tenure{Host: "pbx1", From: 1 * time.Second, To: 9 * time.Second, Silences: []Silence{{2 * time.Second, 5 * time.Second}, {6 * time.Second, 7 * time.Second}}}
	want := []Tenure{{Host: "pbx1", From: 1 * time.Second, To: 2 * time.Second}, {Host: "pbx1", From: 5 * time.Second, To: 6 * time.Second}, {Host: "pbx1", From: 7 * time.Second, To: 9 * time.Second}}
	if parts := whole.Unbroken(); !reflect.DeepEqual(parts, want) {
		t.Errorf("parts %+v, want %+v", parts, want)
	}

	// The planted violation.
	must(t, l.Node(0).Bind(vip))
	must(t, l.Node(2).Bind(vip))
	within(t, 10*time.Second, "three violations", func() error {
		if v := o.Violations(); len(v) < 3 {
			return fmt.Errorf("%d", len(v))
		}
		return nil
	})
	must(t, l.Node(2).Unbind(vip))
	v := o.Violations()[0]
	t.Log(v)
	names := []string{v.Answers[0].Host, v.Answers[1].Host}
	if v.VIP != vip || len(v.Answers) != 2 || !strings.Contains("pbx1 pbx3 pbx1", strings.Join(names, " ")) {
		t.Errorf("violation %v, want pbx1 and pbx3 for %v", v, vip)
	}
	rounds(3)
	found := len(o.Violations())
	rounds(10)
	if n := len(o.Violations()); n != found {
		t.Errorf("%d violations after one of the two let go", n-found)
	}

	// Observing must not teach the router what an announcement should.
	neighbours, err := l.Router().ns.route.NeighList(0, unix.AF_INET)
	must(t, err)
	for _, n := range neighbours {
		if n.IP.String() == vip.String() {
			t.Errorf("the router learned %v from being observed", n)
		}
	}
	if len(o.Tenures(other)) > 0 {
		t.Errorf("answers for %v, which nobody has: %+v", other, o.Tenures(other))
	}
	o.Stop()
	t.Logf("%d rounds of 2 questions cost %v of processor time", o.Asked(), o.CPU())
}

func TestSIPObserverMeasuresAnOutage(t *testing.T) {
	l := newLab(t, Options{})
	for i := range 2 {
		_, err := l.Node(i).Start(helper("serve", "0.0.0.0:5060", l.Node(i).Name))
		must(t, err)
		must(t, l.Node(i).Bind(l.VIP(i+1)))
	}
	begin := Now()
	one, err := l.Phone().ObserveSIP(sip(l.VIP(1)), 0)
	must(t, err)
	two, err := l.Phone().ObserveSIP(sip(l.VIP(2)), 0)
	must(t, err)
	answered(t, one)
	answered(t, two)
	// What happened before the first answer is address resolution, not the outage.
	quiet := Now()
	answered(t, one)

	cut := Now()
	must(t, l.Cut(l.Node(0)))
	isCut := Now()
	pause(isCut + 50*time.Millisecond)
	restore := Now()
	must(t, l.Restore(l.Node(0)))
	restored := Now()
	answered(t, one)
	pause(begin + 3*time.Second)
	one.Stop()
	two.Stop()
	total := Now() - begin

	r, whole := one.Report(quiet, 0), two.Report(quiet, 0)
	t.Logf("cut for %v to %v: %v", restore-isCut, restored-cut, r)
	t.Logf("not cut: %v", whole)
	slack := 2*r.Stall + 10*time.Millisecond
	if r.Silence < restore-isCut || r.Silence > restored-cut+slack {
		t.Errorf("silence %v, want %v to %v", r.Silence, restore-isCut, restored-cut+slack)
	}
	if r.SilenceFrom > isCut || r.SilenceTo < restore || r.SilenceAnswered != "pbx1" {
		t.Errorf("silence from %v to %v, ended by %q; cut from %v to %v", r.SilenceFrom, r.SilenceTo, r.SilenceAnswered, isCut, restore)
	}
	if r.Gap < r.Silence-r.Worst {
		t.Errorf("gap between answers %v after a silence of %v", r.Gap, r.Silence)
	}
	if whole.Lost > whole.Sent/100 || whole.Silence > 20*time.Millisecond+whole.Stall {
		t.Errorf("the other VIP: %v, want nothing lost, or hardly anything on a busy machine", whole)
	}
	if whole.By["pbx2"] != whole.Answered || whole.Status[200] != whole.Answered || r.By["pbx1"] != r.Answered {
		t.Errorf("answers by %v with %v, and %v", whole.By, whole.Status, r.By)
	}
	if n := one.Duplicates() + one.Foreign() + two.Duplicates() + two.Foreign(); n > 0 {
		t.Errorf("%d answers to nothing", n)
	}
	for _, o := range []*SIPObserver{one, two} {
		share := 100 * o.CPU().Seconds() / total.Seconds()
		t.Logf("observing %v: %d questions, %.1f %% of a core", o.Target, o.Report(0, 0).Sent, share)
		if share > 60 {
			t.Errorf("observing %v took %.1f %% of a core", o.Target, share)
		}
	}
}

// pause waits until an instant. It makes the length of a planted outage.
func pause(until time.Duration) { time.Sleep(until - Now()) }

// TestSIPReportCountsSilence checks the report's arithmetic with invented questions.
func TestSIPReportCountsSilence(t *testing.T) {
	make := func(pattern string) *SIPObserver { // one character per ms: a answered, - lost, . not asked
		o := &SIPObserver{servers: []string{"", "pbx1"}}
		chunk := [pingChunk]ping{}
		for i, c := range pattern {
			if c == '.' {
				continue
			}
			p := ping{sent: int64(i) * 1e6}
			if c == 'a' {
				p.rtt, p.server, p.status = 1e5, 1, 200
			}
			chunk[o.count] = p
			o.count++
		}
		o.chunks = [][]ping{chunk[:]}
		return o
	}
	for _, c := range []struct {
		pattern                  string
		silence, from, gap, rest int // ms
		lost                     int
	}{
		{"aaaaaa", 0, 0, 1, 1, 0},
		{"aa-aaa", 2, 1, 2, 1, 1},
		{"aa-a--a-a", 3, 3, 3, 1, 4},
		{"--aa", 2, 0, 1, 1, 2},
		{"aa---", 3, 1, 1, 1, 3},
		{"-----", 4, 0, 0, 1, 5},
		{"aa....aa", 0, 0, 5, 5, 0}, // the observer slept: no silence
		{"", 0, 0, 0, 0, 0},
	} {
		r := make(c.pattern).Report(0, 0)
		ms := func(d time.Duration) int { return int(d / time.Millisecond) }
		if ms(r.Silence) != c.silence || ms(r.SilenceFrom) != c.from || ms(r.Gap) != c.gap || r.GapTo-r.GapFrom != r.Gap || ms(r.Stall) != c.rest || r.Lost != c.lost {
			t.Errorf("%q: silence %v from %v, gap %v, stall %v, lost %d; want %+v", c.pattern, r.Silence, r.SilenceFrom, r.Gap, r.Stall, r.Lost, c)
		}
	}
	o := make("aa--aa")
	if r := o.Report(2*time.Millisecond, 4*time.Millisecond); r.Sent != 2 || r.Lost != 2 {
		t.Errorf("the middle of aa--aa: %v", r)
	}
	if p := o.Pings(time.Millisecond, 3*time.Millisecond); len(p) != 2 || p[0].Server != "pbx1" || p[1].RTT != 0 {
		t.Errorf("pings %+v", p)
	}
}

func TestSIPAnswersAreParsed(t *testing.T) {
	for _, c := range []struct {
		name, in       string
		number, status int
		server         string
	}{
		{"plain", "SIP/2.0 200 OK\r\nCSeq: 1000000007 OPTIONS\r\nServer: pbx1\r\n\r\n", 1000000007, 200, "pbx1"},
		{"other spelling", "SIP/2.0 503 No\r\nSERVER : a b \r\ncseq:5\r\n\r\n", 5, 503, "a b"},
		{"in the body only", "SIP/2.0 200 OK\r\n\r\nCSeq: 5\r\nServer: x\r\n", 0, 200, ""},
		{"longer name", "SIP/2.0 200 OK\r\nServerX: no\r\nCSeqX: 9\r\n\r\n", 0, 200, ""},
		{"request", "OPTIONS sip:a SIP/2.0\r\nCSeq: 5 OPTIONS\r\n\r\n", 0, 0, ""},
		{"cut off", "SIP/2.0 2", 0, 0, ""},
		{"empty", "", 0, 0, ""},
	} {
		number, status, server := parseAnswer([]byte(c.in))
		if number != c.number || status != c.status || string(server) != c.server {
			t.Errorf("%s: %d, %d, %q; want %d, %d, %q", c.name, number, status, server, c.number, c.status, c.server)
		}
	}
}

func TestAddressObserverJudgesByOrder(t *testing.T) {
	l := newLab(t, Options{})
	vip, six := l.VIP(1), netip.MustParseAddr("fd77::101")
	must(t, l.Node(2).Bind(l.VIP(2)))
	o, err := l.ObserveAddresses()
	must(t, err)
	must(t, l.Node(0).Bind(vip))
	const moves = 200
	for i := range moves {
		must(t, l.Node(i%2).Unbind(vip))
		must(t, l.Node((i+1)%2).Bind(vip))
	}
	intervals, err := o.Intervals(vip)
	must(t, err)
	if len(intervals) != moves+1 || intervals[0].Host != "pbx1" || intervals[1].Host != "pbx2" || intervals[moves].To != 0 {
		t.Errorf("%d intervals, want %d: first %+v", len(intervals), moves+1, intervals[:min(2, len(intervals))])
	}
	overlaps, err := o.Overlaps(vip, l.VIP(2), six)
	must(t, err)
	if len(overlaps) > 0 {
		t.Errorf("overlaps in %d clean moves: %+v", moves, overlaps)
	}
	if there, err := o.Intervals(l.VIP(2)); err != nil || len(there) != 1 || there[0].Host != "pbx3" {
		t.Errorf("what was there before: %+v, %v", there, err)
	}

	// The planted bug: bind on the new holder before unbinding on the old, with the
	// shortest overlap.
	must(t, l.Node(1).Bind(vip))
	must(t, l.Node(0).Unbind(vip))
	must(t, l.Node(0).Bind(six))
	must(t, l.Node(1).Bind(six))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	must(t, WaitFor(ctx, "the overlap of IPv6, which the kernel tells of a moment later", func() error {
		if overlaps, err = o.Overlaps(vip, l.VIP(2), six); err == nil && len(overlaps) < 2 {
			err = fmt.Errorf("%d overlaps", len(overlaps))
		}
		return err
	}))
	if len(overlaps) != 2 || overlaps[0].Addr != vip || overlaps[0].To == 0 || overlaps[1].Addr != six || overlaps[1].To != 0 {
		t.Errorf("overlaps %+v, want one ended of %v and one lasting of %v", overlaps, vip, six)
	}
	o.Stop()
	if events, err := o.Events(); err != nil || len(events) < 2*moves {
		t.Errorf("after Stop: %d events, %v", len(events), err)
	}
}

func TestServerAnswersFromTheAddressAsked(t *testing.T) {
	l := newLab(t, Options{Nodes: []string{"pbx1"}})
	must(t, l.Node(0).Bind(l.VIP(1)))
	p, err := l.Node(0).Start(helper("serve", "0.0.0.0:5060", "pbx1"))
	must(t, err)
	o, err := l.Phone().ObserveSIP(sip(l.VIP(1)), 0) // a connected socket: only the VIP's own answers arrive
	must(t, err)
	answered(t, o)
	must(t, p.Stop())
	stopped := Now()
	within(t, 5*time.Second, "questions lost while stopped", func() error {
		if r := o.Report(stopped+10*time.Millisecond, Now()-10*time.Millisecond); r.Lost < 10 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	must(t, p.Cont())
	answered(t, o)
	p.Kill()
	killed := Now()
	within(t, 5*time.Second, "questions refused", func() error {
		if r := o.Report(killed, Now()-10*time.Millisecond); r.Lost < 10 || r.Answered > 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	if _, err := l.Node(0).Start(helper("serve", "0.0.0.0:5060", "pbx1")); err != nil {
		t.Fatal(err)
	}
	answered(t, o) // earlier ICMP refusals did not spoil the observer's socket
}

func TestServeOptionsRefusesABadAddress(t *testing.T) {
	for _, addr := range []string{"5060", ":5060", "[::]", "nonsense"} {
		if err := ServeOptions(context.Background(), addr, "pbx1"); err == nil || !strings.Contains(err.Error(), "want an address and a port") {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

func TestAnswer(t *testing.T) {
	const headers = "Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK1;rport\r\nv: SIP/2.0/UDP 10.0.0.9\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n\r\n"
	from := netip.MustParseAddrPort("192.0.2.7:1234")
	for _, c := range []struct{ name, in, want string }{
		{"options", "OPTIONS sip:a SIP/2.0\r\n" + headers, "SIP/2.0 200 OK\r\n"},
		{"invite", "INVITE sip:a SIP/2.0\r\n" + headers, "SIP/2.0 501 Not Implemented\r\n"},
		{"bye", "BYE sip:a SIP/2.0\r\n" + headers, "SIP/2.0 481 Call/Transaction Does Not Exist\r\n"},
		{"ack", "ACK sip:a SIP/2.0\r\n" + headers, ""},
		{"response", "SIP/2.0 200 OK\r\n" + headers, ""},
		{"no Via", "OPTIONS sip:a SIP/2.0\r\nTo: x\r\nFrom: y\r\nCall-ID: z\r\nCSeq: 1 OPTIONS\r\n\r\n", ""},
		{"no end", "OPTIONS sip:a SIP/2.0\r\nVia: x\r\n", ""},
		{"no colon", "OPTIONS sip:a SIP/2.0\r\nVia\r\n" + headers, ""},
		{"garbage", "\x00\xff\r\n\r\n", ""},
		{"empty", "", ""},
	} {
		got, ok := Answer(nil, []byte(c.in), from, "pbx1")
		if ok != (c.want != "") || !ok && c.want != "" || ok && !strings.HasPrefix(string(got), c.want) {
			t.Errorf("%s: %v, %q; want %q", c.name, ok, got, c.want)
		}
		if !ok {
			continue
		}
		for _, line := range []string{
			"Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK1;rport=1234;received=192.0.2.7\r\nVia: SIP/2.0/UDP 10.0.0.9\r\n",
			"To: <sip:c@d>;tag=pbx1\r\n", "From: <sip:a@b>;tag=1\r\n", "Call-ID: x\r\n", "CSeq: 1 OPTIONS\r\n", "Server: pbx1\r\n",
		} {
			if !strings.Contains(string(got), line) {
				t.Errorf("%s: %q lacks %q", c.name, got, line)
			}
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("OPTIONS sip:a SIP/2.0\r\nVia: x;rport\r\n\r\n"))
	f.Add([]byte("SIP/2.0 200 OK\r\nCSeq: 1000000000 OPTIONS\r\nServer: x\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		Answer(nil, b, netip.MustParseAddrPort("192.0.2.7:1234"), "pbx1")
		parseAnswer(b)
	})
}

func TestWaitForNamesWhatItAwaited(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	last := errors.New("still raining")
	err := WaitFor(ctx, "the sun", func() error { return last })
	if !errors.Is(err, last) || !strings.Contains(err.Error(), "the sun") {
		t.Errorf("error %v", err)
	}
	calls := 0
	err = WaitFor(context.Background(), "the third look", func() error {
		if calls++; calls < 3 {
			return last
		}
		return nil
	})
	if err != nil || calls != 3 {
		t.Errorf("%v after %d looks", err, calls)
	}
}

// TestStolen: the time stolen from all cores counts together, if it was stolen between two
// moments or counted a little later.
func TestStolen(t *testing.T) {
	ms := func(n ...time.Duration) []time.Duration {
		for i := range n {
			n[i] *= time.Millisecond
		}
		return n
	}
	s := &Stolen{at: ms(10, 100, 200, 300, 400, 1000),
		cores: [][]time.Duration{ms(0, 0), ms(0, 10), ms(50, 10), ms(50, 70), ms(50, 70), ms(500, 500)}}
	for _, c := range []struct{ from, to, want time.Duration }{
		{0, 0, 10}, {10, 100, 60}, {100, 200, 110}, {100, 150, 110}, {199, 200, 110}, {200, 300, 60}, {300, 300, 0}, {0, 900, 1000}, {350, 400, 880},
	} {
		got, err := s.Between(c.from*time.Millisecond, c.to*time.Millisecond)
		if err != nil || got != c.want*time.Millisecond {
			t.Errorf("from %d to %d ms: %v, %v, want %d ms", c.from, c.to, got, err, c.want)
		}
	}
}

// TestExplains: an overlap is explained by what was stolen around it, if that is more
// than it by the lease's margin, and by nothing before or after.
func TestExplains(t *testing.T) {
	const ms = time.Millisecond
	now := Now()
	s := &Stolen{at: []time.Duration{0, 500 * ms, 1000 * ms, 1200 * ms, 2000 * ms, now, now + time.Hour},
		cores: [][]time.Duration{{0}, {300 * ms}, {300 * ms}, {380 * ms}, {380 * ms}, {680 * ms}, {680 * ms}}}
	for _, c := range []struct {
		from, to, lost time.Duration
		all            bool
	}{
		{1090 * ms, 1160 * ms, 80 * ms, true}, {1090 * ms, 1161 * ms, 80 * ms, false},
		{1400 * ms, 1401 * ms, 0, false}, {now - time.Second, 0, 300 * ms, false},
	} {
		lost, all, err := s.Explains(Overlap{From: c.from, To: c.to})
		if lost != c.lost || all != c.all || err != nil {
			t.Errorf("from %v to %v: %v, %v, %v", c.from, c.to, lost, all, err)
		}
	}
}

// TestStolenNow: the kernel tells of every core, and the count includes the last moment.
func TestStolenNow(t *testing.T) {
	s := &Stolen{}
	s.sample()
	from := Now()
	sum, err := s.Between(from, from)
	if cores := len(s.cores[0]); err != nil || sum < 0 || cores < runtime.NumCPU() || s.at[len(s.at)-1] < from+stolenLate {
		t.Errorf("%d cores, %v stolen, %v", cores, sum, err)
	}
}
