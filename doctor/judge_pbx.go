package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"sipalive/config"
	"sipalive/control"
)

// sip reports what this node finds, and what the others say of every PBX.
func sip(f *Facts) (out []Finding) {
	for _, p := range f.Probes {
		text := fmt.Sprintf("%s: %s: %s", p.Who, p.What, p.Word)
		if p.Why != "" {
			text += ": " + strings.ReplaceAll(p.Why, "\n", " ")
		}
		if !p.Bad {
			out = append(out, fine(text))
			continue
		}
		out = append(out, bad(text, "see that the PBX runs, listens there and lets OPTIONS pass (acl, firewall): `sipalive ping` asks once"))
	}
	if !f.running() {
		return out
	}
	for _, n := range f.Agent.Status.Nodes {
		out = append(out, f.views(n)...)
	}
	return out
}

// views reports what the other nodes say of one node's PBX. A node that says nothing has
// not asked yet.
func (f *Facts) views(n control.NodeStatus) (out []Finding) {
	var answered, once, deaf, unready []string
	for _, v := range n.Views {
		switch {
		case v.From == f.Agent.Status.Node:
		case v.SIP == "up" || v.SIP == "rising":
			answered = append(answered, v.From)
		case v.SIP == "suspect":
			once = append(once, v.From)
		case v.SIP == "unready":
			unready = append(unready, v.From)
		default:
			deaf = append(deaf, v.From+" ("+v.SIP+")")
		}
	}
	if len(answered) > 0 {
		out = append(out, fine(fmt.Sprintf("%s: its PBX answers %s, as they say", n.Name, strings.Join(answered, ", "))))
	}
	if len(once) > 0 {
		out = append(out, warn(fmt.Sprintf("%s: its PBX left the last question of %s unanswered", n.Name, strings.Join(once, ", ")), "ask again; packets are lost on the way, or the PBX is busy"))
	}
	if len(unready) > 0 {
		out = append(out, bad(fmt.Sprintf("%s: its checks say that it is not ready, as %s knows", n.Name, strings.Join(unready, ", ")), "`sipalive status --json` there shows which check, and its text"))
	}
	if len(deaf) > 0 {
		out = append(out, bad(fmt.Sprintf("%s: its PBX does not answer %s", n.Name, strings.Join(deaf, ", ")),
			"let SIP from every node's address pass at "+n.Name+" (acl, fail2ban, firewall): without it a dead PBX is not told from a deaf observer"))
	}
	return out
}

func eventSocket(f *Facts) (out []Finding) {
	p := f.PBX
	if p == nil {
		return nil
	}
	if p.PasswdErr != nil {
		out = append(out, bad(p.PasswdErr.Error(), "chown to the agent's user and chmod 600"))
	}
	failed := fmt.Sprintf("event socket at %s: %v; its profiles and gateways were not looked at", p.Address, p.Err)
	switch {
	case p.Err != nil && p.Used:
		return append(out, bad(failed, "see [freeswitch] in the file: address and password_file; the file's freeswitch actions fail without it"))
	case p.Err != nil:
		return append(out, warn(failed, "set [freeswitch] password_file, if its actions, drain --wait-calls or ready_check are to be used"))
	}
	return append(out, fine("event socket at "+p.Address+": the password is accepted"))
}

// nonlocal checks ip_nonlocal_bind: a profile on a VIP has to bind before the VIP is
// here.
func nonlocal(f *Facts) (out []Finding) {
	if f.Nonlocal == nil {
		return nil
	}
	needed, served := map[string]string{}, map[string]string{} // the first VIP of each version
	for _, v := range f.bindable() {
		profiles := profilesOf(v.Actions)
		if f.PBX != nil && f.PBX.Sofia != nil {
			profiles = append(profiles, f.PBX.Sofia.on(v.Address)...)
		}
		version := "ipv4"
		if v.Address.Is6() {
			version = "ipv6"
		}
		switch {
		case len(profiles) == 0 && len(f.Config.SIP.OnVIP(v.Name)) == 0:
		case len(profiles) == 0 && f.Served[v.Name] == Beforehand:
			served[version] = cmp.Or(served[version], v.Name)
		case len(profiles) == 0 && f.Served[v.Name] == Wildcard:
			out = append(out, f.wildcard(v))
		case len(profiles) == 0 && f.Served[v.Name] == Present && f.Nonlocal[version] != "1":
			out = append(out, warn(fmt.Sprintf("%s: it is here, so that nobody sees whether what serves it starts without it", v.Name),
				"run sipalive doctor on a node that does not hold it, too; or set net."+version+".ip_nonlocal_bind = 1"))
		default:
			needed[version] = cmp.Or(needed[version], v.Name)
		}
	}
	for _, version := range []string{"ipv4", "ipv6"} {
		name := "net." + version + ".ip_nonlocal_bind"
		switch vip := needed[version]; {
		case vip == "" && served[version] != "":
			out = append(out, fine(fmt.Sprintf("%s is not needed: what listens for %s does so wherever the VIP is", name, served[version])))
		case vip == "":
		case f.Nonlocal[version] == "1":
			out = append(out, fine(name+" = 1: a profile can be bound before its VIP is here"))
		default:
			out = append(out, bad(fmt.Sprintf("%s is %s: what listens on %s starts only where the VIP is, a second late at best", name, cmp.Or(f.Nonlocal[version], "not there"), vip),
				fmt.Sprintf("echo %s = 1 > /etc/sysctl.d/60-sipalive.conf && sysctl --system; then restart the profile", name)))
		}
	}
	return out
}

// wildcard judges a program that listens on all addresses. If the VIP is verified, the
// program is known to answer from the address that was asked.
func (f *Facts) wildcard(v config.VIP) Finding {
	for _, s := range f.vips() {
		if s.Name == v.Name && s.Verified {
			return fine(fmt.Sprintf("%s: what listens on all addresses answers from it, as %s has shown", v.Name, s.Holder))
		}
	}
	return warn(fmt.Sprintf("%s: what serves it here listens on all addresses, and may answer from another one than was asked", v.Name),
		"see that `sipalive status` calls it verified where it is held; else let the PBX listen on the VIP itself (Kamailio: listen=udp:"+v.Address.String()+":5060 and ip_free_bind=1)")
}

// profileWords finds the profile in an action: `sofia profile NAME recover`, or our own
// `profile-recover NAME`.
var profileWords = regexp.MustCompile(`^(?:sofia\s+profile|profile-recover)\s+(\S+)`)

func profilesOf(actions []config.Action) (names []string) {
	for _, a := range actions {
		for _, c := range a.FreeSWITCH {
			if m := profileWords.FindStringSubmatch(strings.TrimSpace(c)); m != nil && !slices.Contains(names, m[1]) {
				names = append(names, m[1])
			}
		}
	}
	return names
}

// traps looks for FreeSWITCH settings that are known to cause trouble.
func traps(f *Facts) (out []Finding) {
	if f.Config == nil {
		return nil
	}
	out = append(out, sharedProfiles(f.Config.VIPs)...)
	p := f.PBX
	switch {
	case p == nil || p.Err != nil:
		return out
	case p.SofiaErr != nil:
		return append(out, warn(fmt.Sprintf("the configuration of its SIP profiles was not read: %v", p.SofiaErr), "see yourself: auto-restart false, one profile for each VIP, no gateway that registers from two nodes"))
	case p.Sofia == nil:
		return out
	}
	before := len(out)
	if p.Sofia.AutoRestart {
		out = append(out, bad("auto-restart is on: FreeSWITCH restarts its profiles whenever an address comes or goes, which hangs up calls at every takeover",
			`<param name="auto-restart" value="false"/> in global_settings of sofia.conf.xml, then reload mod_sofia when no calls are up`))
	}
	out = append(out, f.wrongProfiles()...)
	out = append(out, f.registering()...)
	if len(out) == before {
		out = append(out, fine("auto-restart is off, profiles and gateways are each at one address"))
	}
	return out
}

// sharedProfiles finds profiles named by two VIPs: `recover` takes every call of the
// named profile, whatever its VIP.
func sharedProfiles(vips []config.VIP) (out []Finding) {
	first := map[string]string{}
	for _, v := range vips {
		for _, name := range profilesOf(v.Actions) {
			if other, taken := first[name]; taken {
				out = append(out, bad(fmt.Sprintf("%s and %s both name the profile %s: recovering one takes the other's calls", other, v.Name, name), "one profile for each VIP, by one name on every node"))
				continue
			}
			first[name] = v.Name
		}
		for _, a := range v.Actions {
			if slices.ContainsFunc(a.FreeSWITCH, func(c string) bool { return strings.Join(strings.Fields(c), " ") == "sofia recover" }) {
				out = append(out, bad(v.Name+": `sofia recover` takes the calls of every profile, healthy nodes' included", "`sofia profile NAME recover`, or `profile-recover NAME`"))
			}
		}
	}
	return out
}

func (f *Facts) wrongProfiles() (out []Finding) {
	s := f.PBX.Sofia
	for _, v := range f.bindable() {
		on := s.on(v.Address)
		for _, name := range profilesOf(v.Actions) {
			switch known := slices.Contains(s.names(), name); {
			case !known:
				out = append(out, bad(fmt.Sprintf("%s: its actions name the profile %s, which FreeSWITCH does not have", v.Name, name), "add the profile on this node, or correct the action"))
			case !slices.Contains(on, name):
				out = append(out, warn(fmt.Sprintf("%s: its profile %s is not at %s", v.Name, name, v.Address), "set sip-ip of the profile to the VIP: calls are recovered at that address"))
			}
		}
		if len(on) > 1 {
			out = append(out, warn(fmt.Sprintf("%s: the profiles %s are all at its address", v.Name, strings.Join(on, ", ")), "have the actions recover each of them, or keep one"))
		}
	}
	return out
}

// registering warns about gateways that register from the node's own address. In a
// FusionPBX cluster every node loads a gateway whose hostname is empty, and each
// registers it from its own address. The hostname decides what this node loads, but is
// not in the resulting XML. Only the other nodes know what they have loaded, so this
// stays a warning even where all is well.
func (f *Facts) registering() (out []Finding) {
	for _, p := range f.PBX.Sofia.Profiles {
		if f.isVIP(p.IP) || len(p.Registering) == 0 {
			continue
		}
		out = append(out, warn(fmt.Sprintf("profile %s: the gateways %s register from this node's own address: if another node registers one of them too, its calls come to whichever did so last", p.Name, strings.Join(p.Registering, ", ")),
			"see with `fs_cli -x 'sofia status'` on every node that one alone has each of them as REGED; if not, set its Hostname in FusionPBX (empty: every node has it), or put it into the profile of a VIP"))
	}
	return out
}

func (f *Facts) isVIP(ip string) bool {
	a, err := netip.ParseAddr(ip)
	return err == nil && slices.ContainsFunc(f.Config.VIPs, func(v config.VIP) bool { return v.Address == a })
}

func keepers(f *Facts) (out []Finding) {
	if f.Config == nil {
		return nil
	}
	for _, k := range f.Keepers {
		text := fmt.Sprintf("%s: %s has its address in %s", k.VIP, k.Program, k.File)
		switch {
		case k.VIP == "":
			out = append(out, warn(k.Program+" runs on this machine", "see that it keeps no VIP of this cluster; `sipalive import` turns its configuration into this one's"))
		case k.Running:
			out = append(out, bad(text+": two would keep it", "take it out there; a VIP is sipalive's alone"))
		default:
			out = append(out, warn(text+", though it does not run now", "take it out there, before somebody starts it"))
		}
	}
	for _, err := range f.Unread {
		out = append(out, warn(fmt.Sprintf("not looked at: %v", err), "run sipalive doctor as root"))
	}
	if len(f.Keepers)+len(f.Unread) == 0 && f.Keepers != nil {
		out = append(out, fine("nothing else on this machine keeps a VIP"))
	}
	return out
}
