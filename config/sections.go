package config

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits beyond the design's. They keep sums within an int and catch a wrong unit. No
// sensible value comes near them.
const (
	minInterval = 10 * time.Millisecond
	maxInterval = time.Hour
	maxDelay    = 24 * time.Hour
	maxLease    = time.Hour
	maxRelative = 1_000_000        // capacity and weight
	maxProbes   = 1000             // fall and rise
	maxTimeout  = 32 * time.Second // RFC 3261 17.1.2.2: a transaction ends after 64*T1
	minRefresh  = time.Second      // shorter floods the segment
	minLimit    = 5                // less leaves no room beside first announcements (arp.MinLimit)
	maxLimit    = 1000             // frames a second; more than 256 VIPs send at once
	minSurvivor = 2 * time.Second  // fifteen questions take 1.5 s
	minStagger  = time.Millisecond // with none, candidates of different rank collide
	maxHeart    = maxLease / 2     // a lease has at least two heartbeats
	maxVerify   = 10 * time.Minute // a takeover that takes longer has failed
	defSelf     = 200 * time.Millisecond
	defPeer     = time.Second
	defTimeout  = 400 * time.Millisecond
	defProbes   = 3
	defTarget   = "main"
	defSIPPort  = 5060
	defFSAddr   = "127.0.0.1:8021"
	defFSSecret = "/etc/sipalive/freeswitch.password"
	defCheck    = 5 * time.Second
	defCheckEnd = 3 * time.Second
	minCheck    = 100 * time.Millisecond // each check starts a process
)

// config reads the whole file. The result is valid only if first returns nil.
func (d *decoder) config() *Config {
	t := d.root
	c := &Config{
		Cluster:  t.name("cluster", "pbx-dc1"),
		KeyFile:  t.path("key_file", "", "/etc/sipalive/key"),
		Port:     uint16(t.number("port", 7946, 1, 65535)),
		Fence:    Fence(t.oneOf("fence", string(FenceAuto), string(FenceAuto), string(FenceBPF), string(FenceLifetime), string(FenceNone))),
		Failback: Failback(t.oneOf("failback", string(FailbackManual), string(FailbackManual), string(FailbackAuto))),
		Survivor: Survivor(t.oneOf("survivor", string(SurvivorAuto), string(SurvivorAuto), string(SurvivorAlways), string(SurvivorNever))),
	}
	d.timing = t.table("timing")
	c.Timing = timing(d.timing)
	c.Nodes, d.nodeTables = each(t, "node", node)
	sip := t.table("sip")
	c.SIP = sipSection(sip)
	c.FreeSWITCH = freeswitch(t.table("freeswitch"))
	c.Checks, d.checkTables = each(t, "check", check)
	c.VIPs, d.vipTables = each(t, "vip", vip)
	c.Roles, d.roleTables = each(t, "role", role)
	c.Actions = clusterActions(t)
	for _, e := range t.tables("notify") {
		c.Notify = append(c.Notify, notify(e))
	}
	c.Mail = mailSection(t.table("mail"))
	c.Announce = announce(t.table("announce"))
	c.Control = control(t.table("control"))
	t.done()
	d.check(c)
	return c
}

// each reads a list of tables and also returns the tables, for checks across them.
func each[T any](t *table, key string, one func(*table) T) ([]T, []*table) {
	tables := t.tables(key)
	var out []T
	for _, e := range tables {
		out = append(out, one(e))
	}
	return out, tables
}

func timing(t *table) Timing {
	defer t.done()
	return Timing{
		Heartbeat:     t.duration("heartbeat", 200*time.Millisecond, minInterval, maxHeart),
		Lease:         t.duration("lease", time.Second, minInterval, maxLease),
		SurvivorAfter: t.duration("survivor_after", 3*time.Second, minSurvivor, maxDelay),
		HoldDown:      t.duration("hold_down", 10*time.Second, 0, maxDelay),
		Settle:        t.duration("settle", 5*time.Second, 0, maxDelay),
		Stagger:       t.duration("stagger", 50*time.Millisecond, minStagger, maxInterval),
		FailbackAfter: t.duration("failback_after", time.Minute, 0, maxDelay),
		Exclude:       t.duration("exclude", time.Minute, 0, maxDelay),
	}
}

func node(t *table) Node {
	defer t.done()
	return Node{
		Name:     t.name("name", "pbx1"),
		Address:  t.address("address", "192.0.2.11", true),
		Address2: t.address("address2", "198.51.100.11", false),
		Voter:    t.boolean("voter", true),
		Holder:   t.boolean("holder", true),
		Capacity: t.number("capacity", 1, 1, maxRelative),
	}
}

func sipSection(t *table) SIP {
	defer t.done()
	base := Target{
		Name:           defTarget,
		Transport:      "udp",
		Port:           defSIPPort,
		On:             OnNode,
		SelfInterval:   t.duration("self_interval", defSelf, minInterval, maxInterval),
		PeerInterval:   t.duration("peer_interval", defPeer, minInterval, maxInterval),
		Timeout:        t.duration("timeout", defTimeout, minInterval, maxTimeout),
		Fall:           t.number("fall", defProbes, 1, maxProbes),
		Rise:           t.number("rise", defProbes, 1, maxProbes),
		UnhealthyCodes: t.codes("unhealthy_codes", nil),
	}
	s := SIP{
		UserAgent:     t.userAgent("user_agent", "sipalive"),
		Verify:        t.boolean("verify", true),
		VerifyTimeout: t.duration("verify_timeout", 10*time.Second, minInterval, maxVerify),
		TLSVerify:     t.boolean("tls_verify", true),
		TLSCA:         t.optionalPath("tls_ca", "/etc/sipalive/ca.pem"),
		SelfInterval:  base.SelfInterval,
		PeerInterval:  base.PeerInterval,
	}
	targets := t.tables("target")
	t.d.targetTables = targets
	for _, e := range targets {
		s.Targets = append(s.Targets, target(e, base))
	}
	uniqueTargets(s.Targets, targets)
	verifiable(t, s, base, targets)
	if len(targets) == 0 {
		s.Targets = []Target{base}
	}
	return s
}

// target fills in the [sip] values that the target does not set.
func target(t *table, base Target) Target {
	defer t.done()
	own := base
	own.UnhealthyCodes = slices.Clone(base.UnhealthyCodes)
	own.Name = t.nameOr("name", defTarget)
	own.Transport, own.Port = t.listener("uri", defSIPPort)
	own.On = t.text("on", OnNode, OnNode)
	every := t.duration("interval", base.SelfInterval, minInterval, maxInterval)
	if t.has("interval") {
		own.SelfInterval, own.PeerInterval = every, every
	}
	own.Timeout = t.duration("timeout", base.Timeout, minInterval, maxTimeout)
	own.Fall = t.number("fall", base.Fall, 1, maxProbes)
	own.Rise = t.number("rise", base.Rise, 1, maxProbes)
	own.UnhealthyCodes = t.codes("unhealthy_codes", own.UnhealthyCodes)
	return own
}

func freeswitch(t *table) FreeSWITCH {
	defer t.done()
	return FreeSWITCH{
		Address:      t.endpoint("address", defFSAddr),
		PasswordFile: t.path("password_file", defFSSecret, defFSSecret),
		ReadyCheck:   t.boolean("ready_check", false),
	}
}

func check(t *table) Check {
	defer t.done()
	c := Check{
		Name:     t.name("name", "database"),
		Exec:     t.texts("exec", `["/etc/sipalive/checks/db"]`),
		Interval: t.duration("interval", defCheck, minCheck, maxInterval),
		Timeout:  t.duration("timeout", defCheckEnd, minCheck, maxInterval),
		Fall:     t.number("fall", defProbes, 1, maxProbes),
	}
	if len(c.Exec) == 0 && t.good("exec") {
		t.d.absent(t.line("exec"), "exec is missing %s; e.g. exec = [\"/etc/sipalive/checks/db\"]", t.where)
	}
	t.checkExec(c.Exec)
	if c.Timeout > c.Interval && t.good("interval", "timeout") {
		key := "timeout"
		if !t.has(key) {
			key = "interval"
		}
		t.fail(key, "timeout %q is longer than interval %q, but a check ends before the next begins; shorten one or lengthen the other",
			spell(c.Timeout), spell(c.Interval))
	}
	return c
}

func vip(t *table) VIP {
	defer t.done()
	return VIP{
		Name:          t.name("name", "vip1"),
		Address:       t.address("address", "192.0.2.101", true),
		Interface:     t.ifname("interface"),
		Prefer:        t.texts("prefer", `["pbx1"]`),
		Weight:        t.number("weight", 1, 1, maxRelative),
		Gateway:       t.address("gateway", "192.0.2.1", false),
		Announce:      t.boolean("announce", true),
		Actions:       actions(t),
		interfaceLine: t.line("interface"),
	}
}

func role(t *table) Role {
	defer t.done()
	r := Role{Name: t.name("name", "cdr")}
	const example = `["pbx3", "pbx2"]`
	v, given := t.get("prefer")
	switch _, isList := v.([]any); {
	case isList:
		r.Prefer = t.texts("prefer", example)
	case given && v != "spare":
		t.fail("prefer", "prefer: must be \"spare\" or an array of node names, e.g. prefer = %s", example)
	default:
		r.PreferSpare = true
	}
	r.Actions = actions(t)
	return r
}

func announce(t *table) Announce {
	defer t.done()
	a := Announce{Refresh: t.duration("refresh", 30*time.Second, minRefresh, maxInterval), Limit: t.number("limit", 0, 0, maxLimit)}
	if a.Limit > 0 && a.Limit < minLimit {
		t.fail("limit", "limit = %d: fewer than %d frames a second leave no room for what repeats them; 10 suits a switch that shuts a port at 16, 0 is no limit", a.Limit, minLimit)
	}
	return a
}

func control(t *table) Control {
	defer t.done()
	c := Control{Listen: t.listen("listen"), Public: t.boolean("public", false), Group: t.group("group", "sipalive")}
	if c.Listen.IsValid() && !c.Listen.Addr().IsLoopback() && !c.Public {
		t.fail("listen", "listen = %q: whoever reaches it could read everything; \"127.0.0.1:%d\", or public = true to allow that", c.Listen, c.Listen.Port())
	}
	return c
}

// oneOf reads one of a few words.
func (t *table) oneOf(key, def string, words ...string) string {
	s := t.text(key, def, def)
	if !slices.Contains(words, s) {
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = strconv.Quote(w)
		}
		t.fail(key, "%s = %q: must be %s", key, s, strings.Join(quoted, " or "))
	}
	return s
}
