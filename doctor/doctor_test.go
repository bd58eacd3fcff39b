package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sipalive/config"
	"sipalive/control"
)

const file3 = `cluster = "c"
key_file = "/etc/sipalive/key"
[[node]]
name = "pbx1"
address = "192.0.2.11"
[[node]]
name = "pbx2"
address = "192.0.2.12"
[[node]]
name = "pbx3"
address = "192.0.2.13"
[[vip]]
name = "vip1"
address = "192.0.2.101"
`

const recovers = `[[vip.action]]
on = "acquire"
freeswitch = ["sofia profile vip1 recover"]
`

// sound returns the facts of a healthy node.
func sound(t *testing.T, text string) *Facts {
	t.Helper()
	c, err := config.Parse("sipalive.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	own := netip.MustParseAddr("192.0.2.11")
	f := &Facts{
		File: "sipalive.toml", Config: c, Keys: 1, Self: c.Node("pbx1"), Gossip: 10 * time.Second,
		Links: map[string]Link{"eth0": {Exists: true, Running: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}},
		Agent: &Agent{Status: control.Status{Cluster: "c", Node: "pbx1", Quorum: true, Fence: "bpf+lifetime", FenceMeans: "the kernel ends every lease", Scheduling: "rr 95", MemoryLocked: true,
			Nodes: []control.NodeStatus{{Name: "pbx1", Alive: true, Views: []control.View{{From: "pbx1", SIP: "up"}, {From: "pbx2", SIP: "up"}}}, {Name: "pbx2", Alive: true, Relay: "known", Answered: 900e6}, {Name: "pbx3", Alive: true, Relay: "known", Answered: 1900e6}},
			VIPs:  []control.VIPStatus{{Name: "vip1", Holder: "pbx1", State: "held", Router: "proven"}}}},
		Clock:    &Clock{Source: "tsc", Steered: -12.4, Synced: true},
		Ports:    []Port{{Node: "pbx2", Address: netip.MustParseAddr("192.0.2.12")}, {Node: "pbx3", Address: netip.MustParseAddr("192.0.2.13")}},
		Firewall: &Firewall{Rules: &Ruleset{}},
		Drifts:   []Drift{{Node: "pbx2", PPM: 20, Fine: 30}},
		Gateways: map[string]netip.Addr{"vip1": netip.MustParseAddr("192.0.2.1")},
		Probes:   []Probe{{Who: "node pbx1", What: "main, udp:5060", Word: "up", Why: "200 OK"}},
		Nonlocal: map[string]string{"ipv4": "1", "ipv6": "0"},
		Keepers:  []Keeper{},
		Bound:    map[netip.Addr]string{own: "eth0", netip.MustParseAddr("192.0.2.101"): "eth0"},
		PBX:      &PBX{Used: true, Address: "127.0.0.1:8021", Sofia: &Sofia{Profiles: []Profile{{Name: "internal", IP: "192.0.2.11"}, {Name: "vip1", IP: "192.0.2.101"}}}},
	}
	return f
}

func TestSoundNodeIsFine(t *testing.T) {
	said := map[string]bool{}
	all := Examine(sound(t, file3+recovers))
	for _, found := range all {
		said[found.Check] = true
		if found.Level != OK || found.Do != "" || found.Text == "" {
			t.Errorf("%+v", found)
		}
	}
	if Worst(all) != OK {
		t.Errorf("worst is %s", Worst(all))
	}
	for _, c := range checks {
		if !said[c.name] {
			t.Errorf("check %s said nothing", c.name)
		}
	}
}

// Each trouble is found by the check responsible for it, at its level, in words that name
// the thing. Nothing else is reported.
func TestJudgements(t *testing.T) {
	status := func(f *Facts) *control.Status { return &f.Agent.Status }
	noAgent := func(f *Facts) {
		f.Agent = &Agent{Err: errors.New("ask the agent: it is not there")}
		delete(f.Bound, netip.MustParseAddr("192.0.2.101"))
		f.Ports = f.Ports[:1]
		f.Ports[0].Asked = true
	}
	untaken := func(f *Facts, err error) {
		noAgent(f)
		f.Ports[0].Asked, f.Ports[0].AskErr = false, err
	}
	// A VIP served by something other than FreeSWITCH.
	target := func(f *Facts, served Served) {
		f.Config.VIPs[0].Actions, f.PBX, f.Nonlocal["ipv4"] = nil, nil, "0"
		f.Config.SIP.Targets = append(f.Config.SIP.Targets, config.Target{Name: "vip1", On: "vip1", Transport: "udp", Port: 5060})
		f.Served = map[string]Served{"vip1": served}
	}
	const away = "warning agent: ask the agent"
	for name, test := range map[string]struct {
		spoil func(*Facts)
		want  []string // "level check: a part of text or do"
	}{
		"a file that is wrong":    {spoil: func(f *Facts) { *f = Facts{FileErr: errors.New("x.toml:3: unknown key")} }, want: []string{"error file: unknown key"}},
		"another file there":      {spoil: func(f *Facts) { status(f).Nodes[1].ConfigDiffers = true }, want: []string{"warning file: pbx2 runs another"}},
		"another cluster's agent": {spoil: func(f *Facts) { status(f).Cluster = "d" }, want: []string{"error file: is pbx1 of cluster d"}},
		"another node's agent":    {spoil: func(f *Facts) { status(f).Node = "pbx2" }, want: []string{"error file: is pbx2 of cluster c"}},
		"two voters":              {spoil: func(f *Facts) { f.Config.Nodes[2].Voter = false }, want: []string{"warning file: two voters"}},
		"open key":                {spoil: func(f *Facts) { f.KeyErr = errors.New("k: mode 0644 lets others at the key; chmod 600") }, want: []string{"error key: chmod 600"}},
		"keys in change":          {spoil: func(f *Facts) { f.Keys = 2 }, want: []string{"warning key: 2 keys"}},
		"no node here": {spoil: func(f *Facts) {
			*f = Facts{File: "x", Config: f.Config, Keys: 1, SelfErr: errors.New("no node has an address of this machine")}
		},
			want: []string{"error node: no node has"}},
		"second path not here": {spoil: func(f *Facts) { f.Self.Address2 = netip.MustParseAddr("198.51.100.1") }, want: []string{"error node: 198.51.100.1 is not on"}},
		"no interface":         {spoil: func(f *Facts) { f.Config.VIPs[0].Interface = "eth7" }, want: []string{`error interface: interface "eth7"`}},
		"interface down":       {spoil: func(f *Facts) { l := f.Links["eth0"]; l.Running = false; f.Links["eth0"] = l }, want: []string{"error interface: ip link set eth0 up"}},
		"outside the subnet": {spoil: func(f *Facts) {
			f.Links["eth0"] = Link{Exists: true, Running: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")}}
		}, want: []string{"warning address: in no subnet of eth0 (192.0.2.0/28)"}},
		"bound beside the holder":  {spoil: func(f *Facts) { status(f).VIPs[0].Holder = "pbx2" }, want: []string{"error address: pbx2 holds it"}},
		"held and not bound":       {spoil: func(f *Facts) { delete(f.Bound, netip.MustParseAddr("192.0.2.101")) }, want: []string{"error address: is not on this machine"}},
		"bound and nobody":         {spoil: func(f *Facts) { status(f).VIPs[0].Holder = "" }, want: []string{"error address: nobody holds it", "warning router: nobody holds it"}},
		"no raw sockets":           {spoil: func(f *Facts) { f.Agent.Missing = []string{"CAP_NET_RAW"} }, want: []string{"error capabilities: the agent lacks CAP_NET_RAW"}},
		"waiting for nodes":        {spoil: func(f *Facts) { status(f).Waiting = "pbx3 was never heard" }, want: []string{"warning agent: not taken yet: pbx3 was never heard"}},
		"no majority":              {spoil: func(f *Facts) { status(f).Quorum = false }, want: []string{"error agent: no majority of voters"}},
		"no process":               {spoil: func(f *Facts) { f.Agent.Unseen = true }, want: []string{"warning capabilities: was not found"}},
		"no bpf":                   {spoil: func(f *Facts) { f.Agent.Missing = []string{"CAP_BPF"} }, want: []string{"warning capabilities: CAP_BPF"}},
		"fence off":                {spoil: func(f *Facts) { f.Config.Fence = config.FenceNone }, want: []string{`error fence: fence = "none"`}},
		"fence weak":               {spoil: func(f *Facts) { status(f).Fence, status(f).FenceWeak = "lifetime", true }, want: []string{"warning fence: fence lifetime"}},
		"boot clock stands":        {spoil: func(f *Facts) { f.Clock.Stalled = true }, want: []string{"error clock: does not advance"}},
		"clock of interrupts":      {spoil: func(f *Facts) { f.Clock.Source = "jiffies" }, want: []string{"error clock: jiffies"}},
		"clock source not told":    {spoil: func(f *Facts) { f.Clock.Source = "" }, want: []string{"warning clock: on the host"}},
		"clock not told, adjtimex": {spoil: func(f *Facts) { f.Clock.Err = errors.New("operation not permitted") }, want: []string{"warning clock: was not told: operation not permitted"}},
		"clock steered hard":       {spoil: func(f *Facts) { f.Clock.Steered = -900 }, want: []string{"warning clock: -900 ppm"}},
		"no time daemon":           {spoil: func(f *Facts) { f.Clock.Synced = false }, want: []string{"warning clock: chrony"}},
		"normal policy":            {spoil: func(f *Facts) { status(f).Scheduling = "other" }, want: []string{`warning realtime: runs at "other"`}},
		"memory not locked":        {spoil: func(f *Facts) { status(f).MemoryLocked = false }, want: []string{"warning realtime: LimitMEMLOCK"}},
		"clock too fast":           {spoil: func(f *Facts) { f.Drifts[0].PPM = 1100 }, want: []string{"error drift: +1100 ppm"}},
		"clock fast":               {spoil: func(f *Facts) { f.Drifts[0].PPM = -700 }, want: []string{"warning drift: -700 ppm"}},
		"clock within the measure": {spoil: func(f *Facts) { f.Drifts[0].PPM, f.Drifts[0].Fine = 1100, 700 }},
		"clock not told, IPv6": {spoil: func(f *Facts) {
			f.Drifts[0].Err, f.Config.Node("pbx2").Address = errors.New("no answer on TCP port 7946"), netip.MustParseAddr("2001:db8::12")
		}, want: []string{"warning drift: start its agent and let TCP port 7946 pass between the nodes; or run sipalive doctor there too: by its line clock neither may be steered by more than 500 ppm"}},
		"clock not told": {spoil: func(f *Facts) { f.Drifts[0].Err = errors.New("it answers no ICMP timestamp") }, want: []string{"warning drift: types 13 and 14"}},
		"gossip blocked": {spoil: func(f *Facts) { f.Ports[0].TCP = errors.New("no answer") }, want: []string{"warning port: over TCP: no answer"}},
		"deaf by UDP":    {spoil: func(f *Facts) { status(f).Nodes[1] = control.NodeStatus{Name: "pbx2"} }, want: []string{"error port: pbx2: port 7946 of 192.0.2.12: TCP is open, and no heartbeat"}},
		"one way":        {spoil: func(f *Facts) { status(f).Nodes[1].Answered = control.Millis(5 * time.Minute) }, want: []string{"error port: nothing over UDP for 5m0s"}},
		"no answer yet":  {spoil: func(f *Facts) { status(f).Nodes[1].Answered = 0 }, want: []string{"warning port: ask again"}},
		"down": {spoil: func(f *Facts) {
			status(f).Nodes[1] = control.NodeStatus{Name: "pbx2"}
			f.Ports[0].TCP = errors.New("refused")
		}, want: []string{"error port: no connection: refused"}},
		"asked, all good":           {spoil: func(f *Facts) { noAgent(f); f.Ports[0].Heard, f.Ports[0].Answers = true, true }, want: []string{away}},
		"asked, other key":          {spoil: func(f *Facts) { noAgent(f); f.Ports[0].Foreign = true }, want: []string{away, "error port: another key"}},
		"asked, it sends nothing":   {spoil: func(f *Facts) { noAgent(f); f.Ports[0].Answers = true }, want: []string{away, "error port: sends nothing by itself"}},
		"asked, it does not answer": {spoil: func(f *Facts) { noAgent(f); f.Ports[0].Heard = true }, want: []string{away, "error port: does not answer over UDP"}},
		"port taken":                {spoil: func(f *Facts) { untaken(f, errors.New("address already in use")) }, want: []string{away, "warning port: it was not asked: address already in use"}},
		"no key to ask with":        {spoil: func(f *Facts) { untaken(f, nil) }, want: []string{away, "warning port: for want of a key"}},
		"second path":               {spoil: func(f *Facts) { f.Ports[0].Second = true }},
		"second path cut": {spoil: func(f *Facts) { f.Ports[0].Second, f.Ports[0].TCP = true, errors.New("no answer") },
			want: []string{"warning port: the second path: no connection: no answer"}},
		"asked, TCP alone": {spoil: func(f *Facts) { noAgent(f) }, want: []string{away, "error port: nothing is heard over UDP"}},
		"asked, UDP alone": {spoil: func(f *Facts) {
			noAgent(f)
			p := &f.Ports[0]
			p.Heard, p.Answers, p.TCP = true, true, errors.New("no answer")
		}, want: []string{away, "warning port: but over TCP"}},
		"bound, no agent":   {spoil: func(f *Facts) { noAgent(f); f.Ports = nil; f.Bound[netip.MustParseAddr("192.0.2.101")] = "eth0" }, want: []string{"error address: no agent runs here", away}},
		"no root":           {spoil: func(f *Facts) { noAgent(f); f.Ports = nil; f.Agent.Missing = Needed }, want: []string{away, "warning capabilities: as root"}},
		"no nft":            {spoil: func(f *Facts) { f.Firewall = &Firewall{Err: errors.New("not found")} }, want: []string{"warning firewall: not found"}},
		"old iptables":      {spoil: func(f *Facts) { f.Firewall.Legacy = []string{"filter"} }, want: []string{"warning firewall: tables filter"}},
		"relay unknown":     {spoil: func(f *Facts) { status(f).Nodes[2].Relay = "unknown" }, want: []string{"warning relay: pbx3"}},
		"direct way cut":    {spoil: func(f *Facts) { status(f).Nodes[1].ByRelay = true }, want: []string{"warning port: heard through the gateway alone", "error relay: direct way is cut"}},
		"relay not wanted":  {spoil: func(f *Facts) { f.Config.Survivor = config.SurvivorNever; status(f).Nodes[2].Relay = "unknown" }},
		"router not proven": {spoil: func(f *Facts) { status(f).VIPs[0].Router = "unproven" }, want: []string{"error router: not shown to reach it at pbx1"}},
		"router unknown":    {spoil: func(f *Facts) { status(f).VIPs[0].Router = "unknown" }, want: []string{"warning router: has answered no ping of pbx1"}},
		"no gateway":        {spoil: func(f *Facts) { f.Gateways["vip1"] = netip.Addr{} }, want: []string{"warning router: gateway in [[vip]]"}},
		"PBX dead":          {spoil: func(f *Facts) { f.Probes[0].Bad, f.Probes[0].Word = true, "refused" }, want: []string{"error sip: main, udp:5060: refused"}},
		"PBX deaf to one": {spoil: func(f *Facts) {
			status(f).Nodes[0].Views = []control.View{{From: "pbx1", SIP: "up"}, {From: "pbx2", SIP: "silent"}}
		}, want: []string{"error sip: does not answer pbx2 (silent)"}},
		"PBX missed one": {spoil: func(f *Facts) { status(f).Nodes[1].Views = []control.View{{From: "pbx3", SIP: "suspect"}} }, want: []string{"warning sip: question of pbx3"}},
		"PBX not ready":  {spoil: func(f *Facts) { status(f).Nodes[1].Views = []control.View{{From: "pbx2", SIP: "unready"}} }, want: []string{"error sip: as pbx2 knows"}},
		"wrong password": {spoil: func(f *Facts) { f.PBX.Err = errors.New("the password is not accepted") }, want: []string{"error eventsocket: not accepted"}},
		"no password, not used": {spoil: func(f *Facts) {
			f.Config.VIPs[0].Actions = nil
			f.PBX.Used, f.PBX.Err = false, errors.New("no password")
		}, want: []string{"warning eventsocket: no password"}},
		"password for all":            {spoil: func(f *Facts) { f.PBX.PasswdErr = errors.New("p: mode 0644") }, want: []string{"error eventsocket: chmod 600"}},
		"not bound beforehand":        {spoil: func(f *Facts) { f.Nonlocal["ipv4"] = "0" }, want: []string{"error nonlocal: net.ipv4.ip_nonlocal_bind is 0"}},
		"a target, served nowhere":    {spoil: func(f *Facts) { target(f, Unserved) }, want: []string{"error nonlocal: what listens on vip1"}},
		"a target, served beforehand": {spoil: func(f *Facts) { target(f, Beforehand) }},
		"a target, served on all":     {spoil: func(f *Facts) { target(f, Wildcard) }, want: []string{"warning nonlocal: vip1: what serves it here listens on all addresses"}},
		"a target, served on the VIP": {spoil: func(f *Facts) { target(f, Present) }, want: []string{"warning nonlocal: vip1: it is here"}},
		"the same, verified":          {spoil: func(f *Facts) { target(f, Wildcard); status(f).VIPs[0].Verified = true }},
		"auto-restart":                {spoil: func(f *Facts) { f.PBX.Sofia.AutoRestart = true }, want: []string{"error freeswitch: auto-restart is on"}},
		"profile elsewhere":           {spoil: func(f *Facts) { f.PBX.Sofia.Profiles[1].IP = "192.0.2.11" }, want: []string{"warning freeswitch: profile vip1 is not at 192.0.2.101"}},
		"profile missing":             {spoil: func(f *Facts) { f.PBX.Sofia.Profiles = f.PBX.Sofia.Profiles[:1] }, want: []string{"error freeswitch: does not have"}},
		"two profiles at one address": {spoil: func(f *Facts) { f.PBX.Sofia.Profiles[0].IP = "192.0.2.101" }, want: []string{"warning freeswitch: internal, vip1 are all"}},
		"gateway on every node":       {spoil: func(f *Facts) { f.PBX.Sofia.Profiles[0].Registering = []string{"trunk"} }, want: []string{"warning freeswitch: if another node registers one of them too"}},
		"gateway of a VIP":            {spoil: func(f *Facts) { f.PBX.Sofia.Profiles[1].Registering = []string{"trunk"} }},
		"sofia.conf not told":         {spoil: func(f *Facts) { f.PBX.Sofia, f.PBX.SofiaErr = nil, errors.New("-ERR") }, want: []string{"warning freeswitch: was not read: -ERR"}},
		"one profile for two": {spoil: func(f *Facts) {
			f.Config.VIPs = append(f.Config.VIPs, f.Config.VIPs[0])
			f.Config.VIPs[1].Name, f.Config.VIPs[1].Address, f.PBX = "vip2", netip.MustParseAddr("192.0.2.102"), nil
		}, want: []string{"error freeswitch: one profile for each VIP"}},
		"keepalived too":     {spoil: func(f *Facts) { f.Keepers = []Keeper{{"keepalived", "/etc/keepalived/keepalived.conf", "vip1", true}} }, want: []string{"error keepers: two would keep it"}},
		"netplan, not run":   {spoil: func(f *Facts) { f.Keepers = []Keeper{{"netplan", "/etc/netplan/1.yaml", "vip1", false}} }, want: []string{"warning keepers: does not run now"}},
		"files not read":     {spoil: func(f *Facts) { f.Unread = []error{errors.New("open x: permission denied")} }, want: []string{"warning keepers: x: permission denied"}},
		"keepalived of ours": {spoil: func(f *Facts) { f.Keepers = []Keeper{{Program: "keepalived", Running: true}} }, want: []string{"warning keepers: keepalived runs"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t, file3+recovers)
			test.spoil(f)
			expect(t, Examine(f), test.want)
		})
	}
}

func expect(t *testing.T, all []Finding, want []string) {
	t.Helper()
	for _, found := range all {
		if found.Level == OK {
			continue
		}
		if found.Do == "" {
			t.Errorf("nothing to do about %+v", found)
		}
		if len(want) > 0 {
			head, part, _ := strings.Cut(want[0], ": ")
			if head == string(found.Level)+" "+found.Check && strings.Contains(found.Text+". "+found.Do, part) {
				want = want[1:]
				continue
			}
		}
		t.Errorf("unexpected: %s %s: %s. %s", found.Level, found.Check, found.Text, found.Do)
	}
	for _, w := range want {
		t.Errorf("not said: %s", w)
	}
}

// The line about the port also names the rule that drops it. If heartbeats are heard all
// the same, the finding is only a warning.
func TestPortNamesTheRule(t *testing.T) {
	const rules = `{"nftables": [
		{"chain": {"family": "inet", "table": "fw", "name": "in", "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}},
		{"rule": {"family": "inet", "table": "fw", "chain": "in", "handle": 5, "expr": [
			{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "192.0.2.12"}},
			{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 7946}},
			{"drop": null}]}}]}`
	r, err := ParseRuleset([]byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	f := sound(t, file3+recovers)
	f.Firewall.Rules = r
	expect(t, Examine(f), []string{"warning firewall: rule 5 of chain in in table inet fw (drop) drops UDP from pbx2 port 7946"})
	f.Agent.Status.Nodes[1] = control.NodeStatus{Name: "pbx2"}
	expect(t, Examine(f), []string{
		"error port: rule 5 of chain in in table inet fw (drop) drops UDP from pbx2 (nft -a list chain inet fw in)",
		"error firewall: put before it: ip saddr { 192.0.2.12, 192.0.2.13 } meta l4proto { tcp, udp } th dport 7946 accept",
	})
}

// A chain may have rules that are not understood here, such as iptables' own matches. Its
// policy is then no finding if the packets arrive.
func TestUncertainRules(t *testing.T) {
	const rules = `{"nftables": [
		{"chain": {"family": "ip", "table": "filter", "name": "INPUT", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
		{"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "handle": 5, "expr": [{"xt": {"type": "match", "name": "multiport"}}, {"accept": null}]}}]}`
	r, err := ParseRuleset([]byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	f := sound(t, file3+recovers)
	f.Firewall.Rules = r
	expect(t, Examine(f), nil)
	f.Agent.Status.Nodes[1], f.Ports = control.NodeStatus{Name: "pbx2"}, f.Ports[:1]
	expect(t, Examine(f), []string{"error port: the policy of chain INPUT in table ip filter may drop UDP from pbx2", "warning firewall: if nothing accepts it before"})
}

// A rule with a match of iptables' own is named if nothing arrives. It is no finding if
// the packets arrive.
func TestIptablesRuleIsNamed(t *testing.T) {
	f := sound(t, file3+recovers)
	f.Firewall.Rules = ruleset(t, "iptables.json")
	expect(t, Examine(f), nil)
	f.Agent.Status.Nodes[1], f.Ports = control.NodeStatus{Name: "pbx2"}, f.Ports[:1]
	expect(t, Examine(f), []string{
		"error port: rule 6 of chain INPUT in table ip filter (drop) may drop UDP from pbx2 (nft -a list chain ip filter INPUT)",
		"warning firewall: rule 6 of chain INPUT in table ip filter (drop) may drop UDP from pbx2 port 7946, if nothing accepts it before",
		"warning firewall: rule 5 of chain INPUT in table ip filter (reject) may drop TCP from pbx2",
	})
}

// sofia.xml is written by hand, in the form of FreeSWITCH's conf/vanilla with its
// includes resolved. No recording has an answer to xml_locate.
func TestParseSofia(t *testing.T) {
	text, err := os.ReadFile("testdata/sofia.xml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseSofia(string(text))
	if err != nil {
		t.Fatal(err)
	}
	want := &Sofia{Profiles: []Profile{{Name: "external", IP: "192.0.2.11", Registering: []string{"carrier"}}, {Name: "vip1", IP: "192.0.2.101"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	on, err := ParseSofia(strings.Replace(string(text), `name="auto-restart" value="false"`, `name="other" value="x"`, 1))
	if err != nil || !on.AutoRestart {
		t.Errorf("mod_sofia restarts unless it is told not to: %+v, %v", on, err)
	}
	for _, wrong := range []string{"", "-ERR", "<configuration/>", "<configuration><profiles><profile>"} {
		if s, err := ParseSofia(wrong); err == nil {
			t.Errorf("%q is %+v", wrong, s)
		}
	}
}

// As many VIPs as one switch port accepts at once are fine; one more is reported. IPv6
// VIPs, VIPs that are never announced and VIPs on another interface do not count.
func TestManyVIPsOnAPort(t *testing.T) {
	vips := func(n int, more string) (text string) {
		for i := range n {
			text += fmt.Sprintf("[[vip]]\nname = \"more%d\"\naddress = \"192.0.2.%d\"\n%s", i, 120+i, more)
		}
		return text
	}
	for _, c := range []struct {
		text, want string
	}{
		{vips(6, ""), ""},
		{vips(6, "") + "[[vip]]\nname = \"six\"\naddress = \"2001:db8::1\"\ninterface = \"eth0\"\n", ""},
		{vips(7, "announce = false\n"), ""},
		{vips(7, "interface = \"eth1\"\n"), ""},
		{vips(7, ""), "eth0: a node that takes its 8 VIPs at once sends 16 ARP packets in that moment; a switch that inspects ARP shuts a port at 16 in a second (Cisco's default)"},
	} {
		got := ""
		for _, found := range crowded(sound(t, file3+c.text)) {
			if got += found.Text; found.Level != Warning || !strings.Contains(found.Do, "`ip arp inspection limit rate 31`") ||
				!strings.Contains(found.Do, "limit = 10 in [announce], under which the last VIP waits for 0s") {
				t.Errorf("%+v", found)
			}
		}
		if got != c.want {
			t.Errorf("told %q, want %q", got, c.want)
		}
	}
	limited := func(limit, n int) (text string) {
		for _, found := range crowded(sound(t, file3+vips(n-1, "")+fmt.Sprintf("[announce]\nlimit = %d\n", limit))) {
			text += fmt.Sprintf("%s: %s\n", found.Level, found.Text)
		}
		return text
	}
	last := "eth0: %d frames leave in a second ([announce] limit), so the last of its %d VIPs taken at once is announced after %s\n"
	for _, c := range []struct {
		limit, vips int
		want        string
	}{
		{10, 8, ""},
		{10, 10, ""},
		{10, 11, "ok: " + fmt.Sprintf(last, 10, 11, "1.1s")},
		{15, 64, "warning: " + fmt.Sprintf(last, 15, 64, "4.4s")},
		{16, 8, "warning: eth0: a node that takes its 8 VIPs at once sends 16 ARP packets in that moment; a switch that inspects ARP shuts a port at 16 in a second (Cisco's default)\n"},
	} {
		if got := limited(c.limit, c.vips); got != c.want {
			t.Errorf("limit %d, %d VIPs: told %q, want %q", c.limit, c.vips, got, c.want)
		}
	}
	f := sound(t, file3+vips(7, ""))
	if f.Self.Holder = false; len(crowded(f)) > 0 {
		t.Error("a witness takes none")
	}
	if f.Config = nil; len(crowded(f)) > 0 {
		t.Error("told of a file that could not be read")
	}
}
