package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// FuzzParse: no input panics. Refused input gives one short line about a line that
// exists. Accepted input is valid by rules written here a second time, in other words.
// Seeds, named after what they guard, are in testdata/fuzz/FuzzParse.
func FuzzParse(f *testing.F) {
	f.Add(Reference())
	files, err := filepath.Glob("testdata/broken/*.toml")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, file := range append(files, "testdata/home.toml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f.toml", data)
		if err != nil {
			checkRefusal(t, c, err, data)
			return
		}
		if why := invalid(c); why != "" {
			t.Fatalf("accepted although %s", why)
		}
		again, err := Parse("g.toml", data)
		if err != nil || again.Digest() != c.Digest() {
			t.Fatalf("a second reading differs: %v", err)
		}
	})
}

func checkRefusal(t *testing.T, c *Config, err error, data []byte) {
	t.Helper()
	e, ok := err.(*Error)
	if c != nil || !ok {
		t.Fatalf("config %v with error %T", c, err)
	}
	if e.Line < 0 || e.Line > 1+bytes.Count(data, []byte("\n")) {
		t.Fatalf("line %d is not in the file: %v", e.Line, err)
	}
	text := err.Error()
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || len(text) > 4*maxText {
		t.Fatalf("not one short line: %q", text)
	}
	if !strings.HasPrefix(text, "f.toml:") {
		t.Fatalf("does not name the file: %q", text)
	}
}

// invalid says what is wrong with an accepted Config; "" means nothing is.
func invalid(c *Config) string {
	t := c.Timing
	voter, holder := 0, 0
	used := make(map[string]bool)
	taken := func(kind, s string) bool {
		key := fmt.Sprint(kind, " ", s)
		defer func() { used[key] = true }()
		return used[key] || s == "" || len(s) > 63
	}
	for _, n := range c.Nodes {
		if taken("node", n.Name) || taken("address", n.Address.String()) || !oneMachines(n.Address) || n.Address.Is4() != c.Nodes[0].Address.Is4() || n.Capacity < 1 {
			return "node " + n.Name
		}
		if n.Address2.IsValid() && (!oneMachines(n.Address2) || taken("address", n.Address2.String())) {
			return "second address of " + n.Name
		}
		if n.Voter {
			voter++
		}
		if n.Holder {
			holder++
		}
	}
	for _, v := range c.VIPs {
		if taken("lease", v.Name) || taken("address", v.Address.String()) || !oneMachines(v.Address) || v.Gateway.IsValid() && v.Gateway.Is4() != v.Address.Is4() || v.Weight < 1 || holder == 0 {
			return "vip " + v.Name
		}
		if slices.ContainsFunc(v.Prefer, func(n string) bool { return c.Node(n) == nil || !c.Node(n).Holder }) || badActions(v.Actions) {
			return "vip " + v.Name
		}
	}
	for _, r := range c.Roles {
		if taken("lease", r.Name) || r.PreferSpare && len(r.Prefer) > 0 || badActions(r.Actions) {
			return "role " + r.Name
		}
		if slices.ContainsFunc(r.Prefer, func(n string) bool { return c.Node(n) == nil }) {
			return "role " + r.Name
		}
	}
	for _, s := range c.SIP.Targets {
		if taken("target", s.Name) || taken("port", fmt.Sprint(s.On, s.Transport == "udp", s.Port)) || s.Port == 0 || s.Port == c.Port || s.Fall < 1 || s.Rise < 1 ||
			s.SelfInterval <= 0 || s.PeerInterval <= 0 || s.Timeout <= 0 {
			return "target " + s.Name
		}
	}
	for _, k := range c.Checks {
		if taken("check", k.Name) || len(k.Exec) == 0 || k.Exec[0][0] != '/' || k.Fall < 1 || k.Timeout <= 0 || k.Timeout > k.Interval {
			return "check " + k.Name
		}
	}
	switch {
	case voter == 0 || len(c.Nodes) > 64 || len(c.SIP.OnNode()) == 0 || c.Cluster == "" || c.Port == 0 || c.File != "f.toml":
		return "too little or too much"
	case t.Heartbeat < minInterval || float64(t.Lease)*0.999-float64(t.Margin()) < 2*float64(t.Heartbeat)-1:
		return "lease"
	case t.HoldDown < 0 || t.Settle < 0 || t.Stagger <= 0 || t.FailbackAfter < 0 || t.Exclude < 0 || c.Announce.Refresh <= 0:
		return "a duration"
	case c.Announce.Limit != 0 && c.Announce.Limit < minLimit:
		return "limit"
	case c.Fence != FenceAuto && c.Fence != FenceBPF && c.Fence != FenceLifetime && c.Fence != FenceNone:
		return "fence"
	case c.Survivor != SurvivorAuto && c.Survivor != SurvivorAlways && c.Survivor != SurvivorNever || t.SurvivorAfter <= 0:
		return "survivor"
	case c.Failback != FailbackManual && c.Failback != FailbackAuto:
		return "failback"
	case !filepath.IsAbs(c.KeyFile) || !filepath.IsAbs(c.FreeSWITCH.PasswordFile):
		return "a path"
	case strings.ContainsAny(c.SIP.UserAgent, "\r\n") || c.SIP.UserAgent == "":
		return "user agent"
	}
	return ""
}

func badActions(actions []Action) bool {
	return slices.ContainsFunc(actions, func(a Action) bool {
		verbs := 0
		for _, list := range [][]string{a.Exec, a.FreeSWITCH, a.Memcached} {
			if len(list) > 0 {
				verbs++
			}
		}
		if strings.HasPrefix(a.HTTP, "http") {
			verbs++
		}
		phase := slices.Contains([]Phase{Prepare, Acquire, Release, Retire, Failed, Unreachable}, a.On)
		if a.OnFailure == OnFailureRelease && a.On != Prepare && a.On != Acquire || a.User != "" && a.Exec == nil || a.SecretFile != "" && a.HTTP == "" {
			return true
		}
		newline := slices.ContainsFunc(a.FreeSWITCH, func(s string) bool { return strings.ContainsAny(s, "\r\n") })
		return verbs != 1 || !phase || newline || a.Timeout <= 0 || len(a.Exec) > 0 && a.Exec[0][0] != '/'
	})
}

// oneMachines reports whether a is an address of one machine, in its only spelling.
func oneMachines(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsMulticast() && !a.IsUnspecified() && !(a.Is6() && a.IsLinkLocalUnicast())
}
