package main

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"time"

	"sipalive/agent"
	"sipalive/arp"
	"sipalive/elect"
	"sipalive/eventsocket"
	"sipalive/hooks"
	"sipalive/member"
	"sipalive/platform"
	"sipalive/sipcheck"
	"sipalive/vip"
	"sipalive/vip/fence"
)

// openHost opens the parts that reach the kernel and the network on this host.
func openHost(p *agent.Parts, file agent.File, log *slog.Logger) (closeAll func(), err error) {
	var managed []vip.Address
	for _, v := range p.Config.VIPs {
		managed = append(managed, vip.Address{IP: v.Address, Interface: v.Interface})
	}
	if p.Table, err = vip.Open(managed); err != nil {
		return nil, err
	}
	if p.Conntrack, err = vip.Open(managed); err != nil {
		return nil, err
	}
	if p.Alarms, err = platform.OpenAlarms(); err != nil {
		return nil, err
	}
	p.Ends = agent.NewLeaseEnds(p.Now)
	p.Announcer, err = arp.New(arp.Options{Refresh: p.Config.Announce.Refresh, Limit: p.Config.Announce.Limit, May: p.Ends.Ahead, OnError: func(err error) {
		log.Warn("announce", "node", p.Self.Name, "err", err)
	}})
	if err != nil {
		return nil, err
	}
	p.Watch = watchOf(p)
	journal, err := p.Directory.OpenActions()
	if err != nil {
		return nil, err
	}
	p.Roots = file.Roots
	p.EventSocket = eventsocket.Client{Address: p.Config.FreeSWITCH.Address, Password: file.FreeSWITCHPassword}
	p.Runner = hooks.NewRunner(hooks.Options{
		Mail:               agent.MailServer(p.Config),
		Host:               p.Self.Name,
		Service:            hooksService(p.Directory.Run()),
		FreeSWITCHAddress:  p.Config.FreeSWITCH.Address,
		FreeSWITCHPassword: file.FreeSWITCHPassword,
		Now:                platform.BootNow,
		UserAgent:          p.Config.SIP.UserAgent,
		Answers: func(ctx context.Context, at netip.AddrPort, userAgent string) error {
			_, err := sipcheck.Ping(ctx, at, sipcheck.PingOptions{Local: agent.LocalFor(p.Self, at.Addr()), Timeout: pingTimeout, UserAgent: userAgent})
			return err
		},
		Journal:      journal,
		JournalError: func(err error) { log.Warn("keep the actions' journal", "node", p.Self.Name, "err", err) },
	})
	return func() {
		_ = p.Announcer.Close()
		_ = p.Alarms.Close()
		p.Conntrack.Close()
		p.Table.Close()
	}, nil
}

// watchOf returns the function that opens the network watch, which asks the routers and
// hears rivals.
func watchOf(p *agent.Parts) func(agent.Hearing) (*arp.Watch, error) {
	o := arp.WatchOptions{Links: agent.Links(p.Config), Relay: p.Relay, Peers: agent.Neighbours(p.Config, p.Self), Announcer: p.Announcer, Alarms: p.Alarms,
		Refresh: p.Config.Announce.Refresh, Now: func() time.Duration { return time.Duration(platform.BootNow()) }}
	return func(h agent.Hearing) (*arp.Watch, error) {
		o.OnRouter, o.OnRival, o.OnGateway, o.OnEvidence, o.OnSign = h.OnRouter, h.OnRival, h.OnGateway, h.OnEvidence, h.OnSign
		return arp.OpenWatch(o)
	}
}

// pingTimeout bounds one OPTIONS to a FreeSWITCH profile that was just started.
const pingTimeout = 400 * time.Millisecond

// openFence closes the kernel to every VIP without a lease and replaces the fence of an
// earlier agent. A lease for which the machine goes on asking keeps its end.
func openFence(p *agent.Parts, log *slog.Logger) (err error) {
	until := map[elect.VIPID]elect.Instant{}
	for _, h := range p.Adopted {
		until[h.VIP] = h.Until
	}
	vips := map[netip.Addr]int64{}
	for _, v := range p.Config.VIPs {
		vips[v.Address] = int64(until[elect.VIPID(v.Address.String())])
	}
	p.Fence, err = fence.Open(fence.Options{
		Mode: fence.Mode(p.Config.Fence), VIPs: vips, Record: filepath.Join(p.Directory.Run(), fenceName),
	})
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if p.Fence.Weak() {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, "fence "+p.Fence.Kind(), "node", p.Self.Name, "means", p.Fence.Explain())
	return nil
}

// closeFence removes the fence if no VIP is bound that could need it, unless a successor
// is to find it.
func closeFence(p *agent.Parts, left bool, log *slog.Logger) {
	bound, err := p.Table.Bound()
	if err == nil {
		err = p.Fence.Close(!left && len(bound) == 0)
	}
	if err != nil {
		log.Warn("remove the fence", "node", p.Self.Name, "err", err)
	}
}

func memberConfig(p *agent.Parts, keys [][]byte, deliver func(elect.Received)) member.Config {
	seed := p.Rand.Uint64()
	random := rand.New(rand.NewPCG(seed, p.Rand.Uint64()))
	m := member.Config{
		Cluster: p.Config.Cluster, Keys: keys, Port: p.Config.Port, Self: elect.Node(p.Self.Name),
		SelfAddress: p.Self.Address, SelfAddress2: p.Self.Address2, Instance: p.Machine.Instance(), Random: random.Uint64, Deliver: deliver,
		Peers: agent.Peers(p.Config, p.Self),
	}
	return m
}
