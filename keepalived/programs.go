package keepalived

import (
	"path"
	"slices"
	"strings"
	"time"
)

// phases maps a kind of notify script to the phases of its actions.
var phases = map[string][]string{"master": {"acquire"}, "backup": {"release"}, "fault": {"release"}, "stop": {"release"}, "all": {"acquire", "release"}}

// states is what keepalived adds to the command line of a plain notify, by phase.
var states = map[string]string{"acquire": "MASTER", "release": "BACKUP"}

// actions gives each instance's scripts to its first VIP, and each group's scripts to the
// first VIP of its members.
func (s *site) actions(first map[string]*vip) {
	for _, in := range s.instances {
		s.attach(first[in.name], in.hooks)
	}
	for _, g := range s.groups {
		s.note(g.line, "vrrp_sync_group "+g.name, "each VIP is leased by itself; a node that dies or is unfit loses all of its VIPs anyway, and prefer keeps them together")
		for _, m := range g.members {
			if v := first[m]; v != nil {
				s.attach(v, g.hooks)
				break
			}
		}
	}
}

func (s *site) attach(v *vip, hooks []hook) {
	if v == nil {
		return
	}
	for _, h := range hooks {
		if h.kind == "stop" && slices.ContainsFunc(hooks, func(o hook) bool { return o.kind == "backup" || o.kind == "fault" }) {
			s.note(h.line, "notify_stop", "release actions run at a stop too, with SIPALIVE_REASON=stop")
			continue
		}
		if h.kind == "fault" && slices.ContainsFunc(hooks, func(o hook) bool { return o.kind == "backup" }) {
			s.note(h.line, "notify_fault", "release actions run whatever the reason: SIPALIVE_REASON tells it to the script of notify_backup")
			continue
		}
		user := s.user
		if h.user != "" {
			user = s.account(h.line, h.user)
		}
		for _, phase := range phases[h.kind] {
			var more []string
			if h.kind == "all" {
				more = []string{h.sync, h.name, states[phase]}
				if h.priority != "" {
					more = append(more, h.priority)
				}
			}
			v.actions = append(v.actions, action{phase, command(h.command, more...), user})
		}
	}
}

// command returns a program and its arguments, through a shell if the text needs one.
func command(text string, more ...string) []string {
	if isPlain(text) {
		return append(strings.Fields(text), more...)
	}
	for _, m := range more {
		text += " '" + strings.ReplaceAll(m, "'", `'\''`) + "'"
	}
	return []string{shell(text), "-c", text}
}

// isPlain reports whether a command needs no shell: an absolute path and plain words.
func isPlain(text string) bool {
	fields := strings.Fields(text)
	return len(fields) > 0 && path.IsAbs(fields[0]) && !strings.ContainsAny(text, "|&;<>()$`\\\"'*?[]~#\x00")
}

// shell returns bash for what only bash can do.
func shell(text string) string {
	if strings.Contains(text, "/dev/tcp/") || strings.Contains(text, "/dev/udp/") {
		return "/bin/bash"
	}
	return "/bin/sh"
}

// checks converts the scripts and interfaces that instances track. A script of keepalived
// fails with any code but 0; a check fails with 2.
func (s *site) checks(c *cluster) {
	for _, sc := range s.scripts {
		switch {
		case sc.command == "":
			s.note(sc.line, "vrrp_script "+sc.name, "it has no script")
			continue
		case sc.tracked == 0:
			s.note(sc.line, "vrrp_script "+sc.name, "no vrrp_instance tracks it")
			continue
		}
		if sc.tracked < len(s.instances) {
			s.note(sc.line, "vrrp_script "+sc.name, halfTracked)
		}
		k := &check{fall: min(max(sc.fall, 1), 1000), timeout: sc.timeout}
		if k.timeout == 0 {
			k.timeout = sc.interval
		}
		k.timeout = min(max(k.timeout, 100*time.Millisecond), time.Hour)
		k.interval = min(max(sc.interval, k.timeout), time.Hour)
		text := sc.command
		if !isPlain(text) {
			text = "( " + text + " )"
		}
		k.exec = []string{shell(text), "-c", text + " || exit 2"}
		s.add(c, k, sc.name)
	}
	s.linkChecks(c)
}

const halfTracked = "not every vrrp_instance tracks it; a [[check]] is about the node and all of its VIPs"

// linkChecks decides once per interface, over all instances. An instance that tracks only
// its own interface needs no check: its VIP is released anyway if that goes down.
func (s *site) linkChecks(c *cluster) {
	seen := map[string]bool{}
	for _, in := range s.instances {
		for _, link := range in.links {
			if !seen[link] {
				s.linkCheck(c, link)
			}
			seen[link] = true
		}
	}
}

func (s *site) linkCheck(c *cluster, link string) {
	var tracking []*instance
	foreign, free := false, false // foreign: an instance on another interface tracks link; free: an instance neither tracks it nor is on it
	for _, in := range s.instances {
		switch tracks := slices.Contains(in.links, link); {
		case tracks:
			tracking = append(tracking, in)
			foreign = foreign || in.iface != link
		default:
			free = free || in.iface != link
		}
	}
	why := ""
	switch {
	case !isInterface(link) || clean(link) != link:
		why = "no interface can be called that"
	case !foreign:
		why = "a VIP whose own interface goes down or loses its carrier is released anyway"
	default:
		if free {
			why = halfTracked
		}
		text := "grep -qx up /sys/class/net/" + link + "/operstate || exit 2"
		s.add(c, &check{exec: []string{"/bin/sh", "-c", text}, interval: time.Second, timeout: time.Second, fall: 1}, "link-"+link)
	}
	for _, in := range tracking {
		if why != "" {
			s.note(in.line, "track_interface "+link, why)
		}
	}
}

func (s *site) add(c *cluster, k *check, name string) {
	k.name = unused(name, "check", func(name string) bool {
		return slices.ContainsFunc(c.checks, func(k *check) bool { return k.name == name })
	})
	c.checks = append(c.checks, k)
}
