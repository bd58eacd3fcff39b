package keepalived

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

type instance struct {
	line         int
	name         string
	master       bool
	preempts     bool
	preemptDelay time.Duration
	advert       time.Duration
	iface        string
	own          netip.Addr
	peers        []netip.Addr
	addresses    []address
	links        []string // tracked interfaces
	hooks        []hook
}

func (s *site) instance(st statement) {
	in := &instance{line: st.line, name: or(st.arg(1), "unnamed"), preempts: true, advert: time.Second}
	priority := "100"
	for _, st := range st.block {
		switch st.key() {
		case "state":
			in.master = st.arg(1) == "MASTER"
		case "interface":
			in.iface = st.arg(1)
		case "priority":
			priority = st.arg(1)
			in.master = in.master || priority == "255"
			s.note(st.line, "priority", "it compares with other nodes' files: the order in prefer takes its place")
		case "advert_int":
			in.advert = seconds(st.arg(1))
			if in.advert >= slowAdvert {
				s.note(st.line, "advert_int", fmt.Sprintf("a dead host costs one lease, 1s, not three adverts; timing.lease = %q would be as slow", spell(3*in.advert)))
			}
		case "nopreempt":
			in.preempts = false
		case "preempt":
			in.preempts = true
		case "preempt_delay":
			in.preemptDelay = seconds(st.arg(1))
		case "unicast_src_ip":
			in.own, _ = netip.ParseAddr(st.arg(1))
		case "mcast_src_ip":
			if !in.own.IsValid() {
				in.own, _ = netip.ParseAddr(st.arg(1))
			}
		case "unicast_peer":
			s.peers(in, st.block)
		case "virtual_ipaddress", "virtual_ipaddress_excluded":
			for _, st := range st.block {
				s.addresses(in, st)
			}
		case "track_script":
			s.track(in, st.block)
		case "track_interface":
			s.links(in, st.block)
		case "smtp_alert":
			s.smtpAlert = s.smtpAlert || on(st)
		case "garp_master_refresh":
			s.refresh = seconds(st.arg(1))
		default:
			if h, is := asHook(st); is {
				in.hooks = append(in.hooks, h)
			} else {
				s.unknown(st, instanceReasons)
			}
		}
	}
	for i := range in.hooks {
		in.hooks[i].sync, in.hooks[i].name, in.hooks[i].priority = "INSTANCE", in.name, priority
	}
	s.instances = append(s.instances, in)
}

func asHook(st statement) (hook, bool) {
	kind, is := map[string]string{"notify": "all", "notify_master": "master", "notify_backup": "backup",
		"notify_fault": "fault", "notify_stop": "stop"}[st.key()]
	return hook{line: st.line, kind: kind, command: st.arg(1), user: st.arg(2)}, is && st.arg(1) != ""
}

func (s *site) peers(in *instance, block []statement) {
	for _, st := range block {
		ip, err := netip.ParseAddr(st.key())
		if err != nil || len(st.words) > 1 {
			s.note(st.line, strings.Join(st.words, " "), "a peer is an address, nothing more")
		}
		if err == nil {
			in.peers = append(in.peers, ip)
		}
	}
}

// addresses reads a line of virtual_ipaddress, which may hold several addresses.
func (s *site) addresses(in *instance, st statement) {
	for i := 0; i < len(st.words); i++ {
		word := st.words[i]
		ip, mask, err := parseAddress(word)
		if err == nil {
			if mask >= 0 && mask != ip.BitLen() {
				s.note(st.line, "a mask", "a VIP is bound as "+map[bool]string{true: "/32", false: "/128"}[ip.Is4()]+": deleting a wider one can take the node's own address with it")
			}
			in.addresses = append(in.addresses, address{st.line, ip, ""})
			continue
		}
		if len(in.addresses) == 0 || i == 0 {
			s.note(st.line, word, "not an address")
			continue
		}
		valued := slices.Contains([]string{"dev", "brd", "scope", "label", "peer", "preferred_lft", "track_group"}, word)
		value := ""
		if valued && i+1 < len(st.words) {
			i++
			value = st.words[i]
		}
		if word == "dev" {
			in.addresses[len(in.addresses)-1].iface = value
		} else {
			s.note(st.line, word, "a VIP has an address and an interface; the rest is the kernel's default")
		}
	}
}

func (s *site) track(in *instance, block []statement) {
	for _, st := range block {
		i := slices.IndexFunc(s.scripts, func(sc *script) bool { return sc.name == st.key() })
		if i < 0 {
			s.note(st.line, st.key(), "no vrrp_script of that name stands before it")
			continue
		}
		s.scripts[i].tracked++
		if w := slices.Index(st.words, "weight"); w > 0 && number(st.arg(w+1), 0) != 0 {
			s.note(st.line, "weight", noPriorities)
		}
	}
}

func (s *site) links(in *instance, block []statement) {
	for _, st := range block {
		if slices.Contains(st.words, "weight") {
			s.note(st.line, "weight", noPriorities)
		}
		in.links = append(in.links, st.key())
	}
}
