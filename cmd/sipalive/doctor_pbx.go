package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"sipalive/config"
	"sipalive/doctor"
	"sipalive/eventsocket"
	"sipalive/platform"
)

// findPBX logs in at FreeSWITCH, if the file needs it or one runs here.
func findPBX(ctx context.Context, c *config.Config, self *config.Node) *doctor.PBX {
	p := &doctor.PBX{Address: c.FreeSWITCH.Address, Used: usesFreeSWITCH(c)}
	if !self.Holder || !p.Used && !runsFreeSWITCH() {
		return nil
	}
	if info, err := os.Stat(c.FreeSWITCH.PasswordFile); err == nil && info.Mode().Perm()&0o077 != 0 {
		p.PasswdErr = fmt.Errorf("%s: mode %#o lets others read the event socket's password", c.FreeSWITCH.PasswordFile, info.Mode().Perm())
	}
	ctx, cancel := context.WithTimeout(ctx, asLong)
	defer cancel()
	client := eventsocket.Client{Address: p.Address, Password: func() (string, error) { return readPassword(c.FreeSWITCH.PasswordFile) }}
	conn, err := client.Open(ctx)
	if p.Err = err; err != nil {
		return p
	}
	defer conn.Close()
	text, err := conn.Whole("xml_locate configuration configuration name sofia.conf")
	if p.SofiaErr = err; err == nil {
		p.Sofia, p.SofiaErr = doctor.ParseSofia(text)
	}
	return p
}

func usesFreeSWITCH(c *config.Config) bool {
	uses := func(actions []config.Action) bool {
		return slices.ContainsFunc(actions, func(a config.Action) bool { return len(a.FreeSWITCH) > 0 })
	}
	return c.FreeSWITCH.ReadyCheck || uses(c.Actions) || slices.ContainsFunc(c.VIPs, func(v config.VIP) bool { return uses(v.Actions) }) ||
		slices.ContainsFunc(c.Roles, func(r config.Role) bool { return uses(r.Actions) })
}

// findServed looks for what serves the targets on each VIP. The worst-served target of a
// VIP counts.
func findServed(f *doctor.Facts) map[string]doctor.Served {
	served := map[string]doctor.Served{}
	all, err := platform.Listeners()
	if err != nil {
		return served
	}
	for _, v := range f.Config.VIPs {
		_, here := f.Bound[v.Address]
		for i, t := range f.Config.SIP.OnVIP(v.Name) {
			if by := listens(all, t, v.Address, here); i == 0 || by < served[v.Name] {
				served[v.Name] = by
			}
		}
	}
	return served
}

// listens returns the best listener for a target on a VIP.
func listens(all []platform.Listener, t config.Target, vip netip.Addr, here bool) (best doctor.Served) {
	for _, l := range all {
		udp := l.Network == "udp"
		if l.Local.Port() != t.Port || udp != (t.Transport == "udp") {
			continue
		}
		switch at := l.Local.Addr(); {
		case at == vip && !here, at.IsUnspecified() && !udp:
			return doctor.Beforehand
		case at == vip:
			best = doctor.Present
		case at.IsUnspecified():
			best = max(best, doctor.Wildcard)
		}
	}
	return best
}

func runsFreeSWITCH() bool {
	all, err := platform.Listeners("freeswitch")
	return err == nil && len(all) > 0
}
