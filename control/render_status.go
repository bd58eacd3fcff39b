package control

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

const tableTime = "2006-01-02 15:04:05"

// Look is how a status is shown.
type Look struct {
	Location *time.Location // for the times
	Now      time.Time      // times younger than a day are shown with their age
	Color    bool           // with the escape sequences of ECMA-48
}

// WriteStatus writes the status for people. It starts with what is unusual, one line each
// and marked "!", then lists every VIP, role, lock, node and target.
func WriteStatus(w io.Writer, st Status, look Look) error {
	quorum := "quorum"
	if !st.Quorum {
		quorum = look.paint(alarming, "NO QUORUM")
	}
	var head strings.Builder
	fmt.Fprintf(&head, "cluster %s, seen from %s: %s, fence %s\n", oneLine(st.Cluster), oneLine(st.Node), quorum, oneLine(st.Fence))
	for _, line := range st.unusual() {
		head.WriteString(look.paint(odd, "! "+oneLine(line)) + "\n")
	}
	if _, err := io.WriteString(w, head.String()); err != nil {
		return err
	}
	for _, t := range []*table{st.vipTable(look), st.roleTable(look), st.lockTable(look), st.nodeTable(), st.targetTable()} {
		if len(t.rows) < 2 {
			continue
		}
		if _, err := io.WriteString(w, "\n"); err != nil {
			return err
		}
		t.look = look
		if err := t.write(w); err != nil {
			return err
		}
	}
	return nil
}

// unusual returns the lines an operator should not have to look for, worst first.
func (st Status) unusual() []string {
	var lines []string
	say := func(when bool, format string, args ...any) {
		if when {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	for _, v := range st.VIPs {
		say(v.State == "survivor", "%s held without a majority: %s is the last node standing", v.Name, v.Holder)
		say(v.State != "held" && v.State != "survivor", "%s %s: %s", v.Name, v.State, orNone(v.Reason))
		lines = append(lines, unusualTargets(v.Name, v.Targets)...)
		say(v.State == "held" && !v.Verified && !v.Unchecked, "%s not verified: no SIP answer on %s at %s", v.Name, v.Address, v.Holder)
	}
	for _, v := range st.VIPs {
		say(v.Holder != "" && v.Router == "unproven", "%s: the router does not reach %s at %s (see sipalive events there)", v.Name, v.Address, v.Holder)
	}
	for _, r := range st.Roles {
		say(r.State != "held", "role %s %s: %s", r.Name, r.State, orNone(r.Reason))
	}
	say(!st.Quorum, "no quorum: %s hears no majority of the voters, so nothing new is taken over here", st.Node)
	say(st.AllUnfit, "no node is fit: nobody moves (look at the PBXes, or at what they share)")
	say(st.Quiet, "quiet: %s restarted without its grants and grants nothing for a while", st.Node)
	say(st.FenceWeak, "fence %s: %s", st.Fence, st.FenceMeans)
	say(st.SocketsUnwatched != "", "no notice of dying sockets: %s", st.SocketsUnwatched)
	say(len(st.KeyRotation) > 0, "key rotation has not ended: %s (sipalive key rotate finishes it)", strings.Join(st.KeyRotation, ", "))
	say(st.Waiting != "", "voter list: %s", st.Waiting)
	if silent := st.unrelayed(); len(silent) > 0 && len(st.Nodes) > 2 {
		say(true, "relay: the gateway is not known to pass packets between %s and %s: the last node standing would not take over (survivor)",
			st.Node, strings.Join(silent, ", "))
	}
	for _, n := range st.Nodes {
		say(!n.Alive, "%s silent", n.Name)
		say(n.ByRelay, "%s heard through the gateway alone: the direct way from %s is cut", n.Name, st.Node)
		say(n.Alive && !n.Fit && !n.Drained && !n.Witness, "%s not fit: %s", n.Name, orNone(n.Why))
		say(n.Drained, "%s drained (sipalive undrain %s)", n.Name, n.Name)
		say(n.FrozenFor > 0, "%s frozen for another %v: no SIP verdict takes a VIP from it (sipalive thaw %[1]s)", n.Name, n.FrozenFor.round())
		say(n.Fit && len(n.against()) > 0, "%s: its PBX is not heard by %s, but by others", n.Name, strings.Join(n.against(), ", "))
		for _, c := range n.Checks {
			say(c.State != "ok", "%s check %s %s: %s", n.Name, c.Name, c.State, orNone(c.Text))
		}
		lines = append(lines, unusualTargets(n.Name, n.Targets)...)
		say(n.HeldDown, "%s held down: came back lately, ranks last", n.Name)
		say(n.UnknownKey, "%s speaks with a key that %s has not (give it the key file of the others, and sipalive reload there)", n.Name, st.Node)
		say(n.ConfigDiffers, "%s runs another configuration", n.Name)
	}
	for _, v := range st.VIPs {
		say(v.AwayFrom != "", "%s is away from %s%s", v.Name, v.AwayFrom, st.wayHome(v.Name, v.AwayFrom))
	}
	for _, r := range st.Roles {
		say(r.AwayFrom != "", "role %s is away from %s%s", r.Name, r.AwayFrom, st.wayHome(r.Name, r.AwayFrom))
	}
	return lines
}

// wayHome says what keeps a VIP or role from its home, or how it gets there.
func (st Status) wayHome(name, home string) string {
	for _, n := range st.Nodes {
		switch {
		case n.Name != home:
		case !n.Alive:
			return ", which is silent"
		case n.Drained:
			return ", which is drained"
		case !n.Fit:
			return ", which is not fit"
		case n.HeldDown:
			return ", which came back lately"
		}
	}
	if st.FailbackAuto {
		return ": it comes home by itself"
	}
	return fmt.Sprintf("; `sipalive failback %s` brings it home", name)
}

// unrelayed returns the live nodes to which the gateway is not known to relay.
func (st Status) unrelayed() (names []string) {
	for _, n := range st.Nodes {
		if n.Alive && n.Relay == "unknown" {
			names = append(names, n.Name)
		}
	}
	return names
}

func orNone(reason string) string {
	if reason == "" {
		return "no reason known"
	}
	return reason
}

func (st Status) nodeTable() *table {
	t := &table{}
	t.add("NODE", "ADDRESS", "ALIVE", "FIT", "SIP", "DRAINED", "HOLDS")
	for _, n := range st.Nodes {
		t.add(n.Name, n.Address, yesNo(n.Alive), yesNo(n.Fit), n.SIP, yesNo(n.Drained), strings.Join(n.Holds, ", "))
	}
	return t
}

func (st Status) vipTable(look Look) *table {
	t := &table{}
	t.add("VIP", "ADDRESS", "HOLDER", "STATE", "EPOCH", "SINCE", "ROUTER", "VERIFIED", "WHY")
	for _, v := range st.VIPs {
		t.add(v.Name, v.Address, v.Holder, v.State, epoch(v.Epoch), v.Since.in(look), v.router(), v.verified(), v.Reason)
	}
	return t
}

func (st Status) roleTable(look Look) *table {
	t := &table{}
	t.add("ROLE", "HOLDER", "STATE", "EPOCH", "SINCE", "WHY")
	for _, r := range st.Roles {
		t.add(r.Name, r.Holder, r.State, epoch(r.Epoch), r.Since.in(look), r.Reason)
	}
	return t
}

func (st Status) lockTable(look Look) *table {
	t := &table{}
	t.add("LOCK", "HOLDER", "EPOCH", "SINCE", "WAITING HERE", "KEPT")
	for _, l := range st.Locks {
		kept := ""
		if l.KeptFor != "" {
			kept = fmt.Sprintf("for %s, %v at most", l.KeptFor, l.KeptForMillis.round())
		}
		t.add(l.Name, l.Holder, epoch(l.Epoch), l.Since.in(look), strconv.Itoa(l.Waiting), kept)
	}
	return t
}

func (v VIPStatus) router() string {
	if v.Holder == "" {
		return ""
	}
	if v.Proof > 0 {
		return v.Router + " in " + v.Proof.String()
	}
	return v.Router
}

func (v VIPStatus) verified() string {
	if v.Unchecked || v.Holder == "" {
		return ""
	}
	return yesNo(v.Verified)
}

func epoch(e uint64) string {
	if e == 0 {
		return ""
	}
	return strconv.FormatUint(e, 10)
}

// in formats the moment, with its age if it is less than a day ago.
func (s Since) in(look Look) string {
	if s.IsZero() {
		return ""
	}
	moment := s.In(look.Location).Format(tableTime)
	if age := look.Now.Sub(s.Time); age >= 0 && age < 24*time.Hour {
		moment += " (" + age.Round(time.Second).String() + ")"
	}
	return moment
}

// WritePlan writes a plan for people: who would hold what, and why.
func WritePlan(w io.Writer, p Plan) error {
	head := "as things are:"
	if len(p.Without) > 0 {
		head = "without " + strings.Join(p.Without, ", ") + ":"
	}
	if _, err := io.WriteString(w, oneLine(head)+"\n"); err != nil {
		return err
	}
	t := &table{}
	t.add("VIP", "NOW", "THEN", "WHY")
	for _, v := range p.VIPs {
		name := v.Name
		if v.Role {
			name = "role " + name
		}
		t.add(name, v.Holder, v.Would, v.Reason)
	}
	return t.write(w)
}
