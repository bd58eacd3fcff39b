package peers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"sipalive/test/bench/page"
	"sipalive/test/lab"
)

// site is a running tool, with a phone that asks vip1 and ARP questions for both VIPs.
type site struct {
	tool
	*lab.Lab
	addrs *lab.AddressObserver
	arp   *lab.ARPObserver
	phone *lab.SIPObserver
}

// observe starts the observers. The phone asks at this interval; 0 is its default.
func (s *site) observe(interval time.Duration) (err error) {
	if s.addrs, err = s.ObserveAddresses(); err != nil {
		return err
	}
	if s.phone, err = s.Phone().ObserveSIP(netip.AddrPortFrom(s.vips()[0], 5060), interval); err != nil {
		return err
	}
	s.arp, err = s.ObserveARP(0, s.vips()...)
	return err
}

// wait asks every 20 ms until good returns nil.
func wait(what string, good func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := good(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: not within %v: %w", what, patience, err)
		case <-tick.C:
		}
	}
}

// settle waits until the tool is at rest, wherever its VIPs are.
func (s *site) settle() error {
	return wait("rest", s.rest)
}

// home makes the VIPs go home. It waits until they have been there for a heartbeat, as
// seen from outside.
func (s *site) home() error {
	const again = 2 * time.Second // time until the tool is told again to bring the VIPs home
	var since, told time.Duration
	return wait("the VIPs at home", func(ctx context.Context) error {
		if err := s.rest(ctx); err != nil {
			since = 0
			return err
		}
		if err := s.atHome(); err != nil {
			since = 0
			if told == 0 || lab.Now() > told+again {
				told = lab.Now()
				err = errors.Join(err, s.goHome())
			}
			return err
		}
		if since == 0 {
			since = lab.Now()
		}
		if lab.Now() < since+max(s.heartbeat(), 200*time.Millisecond) {
			return errors.New("at home since just now")
		}
		runtime.GC() // now, not while a fault is watched
		return nil
	})
}

// atHome checks that each VIP is only on its home node, and that the phone hears that.
func (s *site) atHome() error {
	for v, vip := range s.vips() {
		holders, err := s.holders(vip)
		if err != nil {
			return err
		}
		if !slices.Equal(holders, []string{s.Node(v).Name}) {
			return fmt.Errorf("%v is on %v", vip, holders)
		}
	}
	last, ok := s.phone.Last()
	if !ok || last.Server != s.Node(0).Name || last.Sent < lab.Now()-50*time.Millisecond {
		return fmt.Errorf("the phone heard %q at %v, now %v", last.Server, last.Sent, lab.Now())
	}
	return nil
}

// holders returns the nodes that have an address now.
func (s *site) holders(vip netip.Addr) (list []string, err error) {
	intervals, err := s.addrs.Intervals(vip)
	for _, i := range intervals {
		if i.To == 0 {
			list = append(list, i.Host)
		}
	}
	return list, err
}

// blind reports that the phone was held up too much to be believed. Around the silence
// the limit is 5 ms, 1 % of the silence and 1/50 of a heartbeat, whichever is largest.
// Elsewhere it is the largest of 5 ms, the silence and 1/10 of a heartbeat: a longer stall
// could hide a longer silence.
func (s *site) blind(r lab.SIPReport) bool {
	const around = 100 * time.Millisecond
	if r.Stall > max(maxStall, r.Silence, s.heartbeat()/10) {
		return true
	}
	near := s.phone.Report(r.SilenceFrom-around, r.SilenceTo+around)
	return r.Silence > 0 && near.Stall > max(maxStall, r.Silence/100, s.heartbeat()/50)
}

// moved returns when the phone's first question since a moment left that another node
// than home answered; false if there is none.
func (s *site) moved(since time.Duration) (time.Duration, bool) {
	for _, p := range s.phone.Pings(since, 0) {
		if p.RTT > 0 && p.Server != s.Node(0).Name {
			return p.Sent, true
		}
	}
	return 0, false
}

// twoOwners returns the periods since a moment in which two hosts answered the same ARP
// question and both had the address. The second condition excludes what a busy switch
// does alone: one question reaches two hosts further apart in time than a planned move
// takes.
func (s *site) twoOwners(since time.Duration) (list []page.Stretch, sum time.Duration, err error) {
	const question, slack = 10 * time.Millisecond, 30 * time.Millisecond
	overlaps, err := s.addrs.Overlaps(s.vips()...)
	if err != nil {
		return nil, 0, err
	}
	for _, v := range s.arp.Violations() {
		real := slices.ContainsFunc(overlaps, func(o lab.Overlap) bool {
			return o.Addr == v.VIP && v.Asked >= o.From-slack && (o.To == 0 || v.Asked <= o.To+slack)
		})
		if v.Asked < since || !real {
			continue
		}
		if n := len(list); n > 0 && v.Asked-since <= list[n-1].To+slack {
			sum += max(v.Asked-since+question-list[n-1].To, 0)
			list[n-1].To = max(list[n-1].To, v.Asked-since+question)
			continue
		}
		list = append(list, page.Stretch{Who: page.Both, From: v.Asked - since, To: v.Asked - since + question})
		sum += question
	}
	return list, sum, nil
}

// takeovers counts how often, in a period, a node got an address that another node had,
// or had had last.
func (s *site) takeovers(from, to time.Duration) (n int, err error) {
	events, err := s.addrs.Events()
	for _, vip := range s.vips() {
		var holders []string
		last := ""
		for _, e := range events {
			switch {
			case e.Addr != vip:
			case !e.Bound:
				holders, last = slices.DeleteFunc(holders, func(h string) bool { return h == e.Host }), e.Host
			default:
				if (len(holders) > 0 || last != e.Host) && e.At >= from && e.At < to {
					n++
				}
				holders = append(holders, e.Host)
			}
		}
	}
	return n, err
}

// course returns what the phone heard, from before a fault on. It leaves out times
// without an answer that are shorter than `shortest`.
func (s *site) course(fault, to time.Duration, shortest time.Duration) (list []page.Stretch) {
	for _, p := range s.phone.Pings(fault-before, to) {
		who := p.Server
		if p.RTT == 0 {
			who = page.Nobody
		}
		at := p.Sent - fault
		if n := len(list); n > 0 && list[n-1].Who == who {
			list[n-1].To = at
			continue
		}
		if n := len(list); n > 0 {
			list[n-1].To = at
			if list[n-1].Who == page.Nobody && at-list[n-1].From < shortest {
				list = list[:n-1] // too short to be shown
				if n > 1 && list[n-2].Who == who {
					list[n-2].To = at
					continue
				}
			}
		}
		list = append(list, page.Stretch{Who: who, From: at, To: at})
	}
	return list
}
