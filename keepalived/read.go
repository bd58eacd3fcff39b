package keepalived

import (
	"strings"
	"time"
)

type script struct {
	line              int
	name, command     string
	interval, timeout time.Duration
	fall              int
	tracked           int // number of instances that track it
}

type group struct {
	line    int
	name    string
	members []string
	hooks   []hook
}

// read reads the top-level blocks.
func (s *site) read(all []statement) {
	for _, st := range all {
		switch st.key() {
		case "global_defs":
			s.global(st.block)
		case "vrrp_script":
			s.script(st)
		case "vrrp_instance":
			s.instance(st)
		case "vrrp_sync_group":
			s.group(st)
		default:
			s.unknown(st, topReasons)
		}
	}
}

func (s *site) unknown(st statement, reasons map[string]string) {
	why := reasons[st.key()]
	if why == "" && isAnnouncement(st.key()) {
		why = announcements
	}
	if why == "" {
		why = "unknown to this import"
	}
	s.note(st.line, st.key(), why)
}

func isAnnouncement(key string) bool {
	return strings.HasPrefix(strings.TrimPrefix(key, "vrrp_"), "garp_") || strings.HasPrefix(key, "vrrp_gna_")
}

func (s *site) global(block []statement) {
	for _, st := range block {
		switch st.key() {
		case "router_id":
			s.routerID = st.arg(1)
		case "notification_email":
			for _, to := range st.block {
				s.mail = append(s.mail, to.words...)
			}
		case "notification_email_from":
			s.mailFrom = st.arg(1)
		case "smtp_server":
			s.mailServer = endpoint(st.arg(1), st.arg(2))
		case "smtp_alert", "smtp_alert_vrrp":
			s.smtpAlert = on(st)
		case "script_user":
			s.user = s.account(st.line, st.arg(1))
		case "enable_script_security":
			s.note(st.line, "enable_script_security", "always so: a program that others could replace is not run")
		case "vrrp_garp_master_refresh":
			s.refresh = seconds(st.arg(1))
		default:
			s.unknown(st, globalReasons)
		}
	}
}

func (s *site) script(st statement) {
	sc := &script{line: st.line, name: st.arg(1), interval: time.Second, fall: 1}
	for _, st := range st.block {
		switch st.key() {
		case "script":
			sc.command = strings.Join(st.words[1:], " ")
		case "interval":
			sc.interval = seconds(st.arg(1))
		case "timeout":
			sc.timeout = seconds(st.arg(1))
		case "fall":
			sc.fall = number(st.arg(1), 1)
		case "rise":
			if number(st.arg(1), 1) > 1 {
				s.note(st.line, "rise", "one good answer ends what a [[check]] said; hold_down keeps a node that relapses from coming back too soon")
			}
		case "weight":
			if number(st.arg(1), 0) != 0 {
				s.note(st.line, "weight", noPriorities)
			}
		default:
			s.unknown(st, scriptReasons)
		}
	}
	s.scripts = append(s.scripts, sc)
}

func (s *site) group(st statement) {
	g := group{line: st.line, name: or(st.arg(1), "unnamed")}
	for _, st := range st.block {
		switch {
		case st.key() == "group":
			for _, m := range st.block {
				g.members = append(g.members, m.words...)
			}
		case st.key() == "smtp_alert":
			s.smtpAlert = s.smtpAlert || on(st)
		default:
			h, is := asHook(st)
			switch {
			case is:
				h.sync, h.name = "GROUP", g.name
				g.hooks = append(g.hooks, h)
			case groupReasons[st.key()] == "" && len(st.words) == 1 && st.block == nil: // the old form: only names
				g.members = append(g.members, st.key())
			default:
				s.unknown(st, groupReasons)
			}
		}
	}
	s.groups = append(s.groups, g)
}
