package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"sipalive/config"
	"sipalive/doctor"
	"sipalive/eventsocket"
	"sipalive/platform"
)

// findPBX logs in at FreeSWITCH, where the file needs it or one runs here.
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

// findServed tells for each VIP whether what serves its targets waits here already,
// on all addresses or on the VIP before that is here.
func findServed(f *doctor.Facts) map[string]bool {
	served := map[string]bool{}
	all, err := platform.Listeners()
	if err != nil {
		return served
	}
	for _, v := range f.Config.VIPs {
		_, here := f.Bound[v.Address]
		served[v.Name] = !slices.ContainsFunc(f.Config.SIP.OnVIP(v.Name), func(t config.Target) bool {
			return !slices.ContainsFunc(all, func(l platform.Listener) bool {
				at := l.Local.Addr()
				return l.Local.Port() == t.Port && (l.Network == "udp") == (t.Transport == "udp") && (at.IsUnspecified() || at == v.Address && !here)
			})
		})
	}
	return served
}

func runsFreeSWITCH() bool {
	all, err := platform.Listeners("freeswitch")
	return err == nil && len(all) > 0
}
