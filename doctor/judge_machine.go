package doctor

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"sipalive/config"
)

func agent(f *Facts) []Finding {
	switch {
	case f.Agent == nil:
		return nil
	case f.Agent.Err != nil:
		return []Finding{warn(f.Agent.Err.Error(), "systemctl start sipalive; what only a running agent knows was not looked at")}
	case f.Agent.Status.Waiting != "":
		return []Finding{warn("the voter list of the file is not taken yet: "+f.Agent.Status.Waiting, "start the nodes that it waits for; `sipalive adopt` only where no other list can be in use")}
	case !f.Agent.Status.Quorum:
		return []Finding{bad("the agent here hears no majority of voters", "see port; `sipalive status` names those that it does not hear")}
	}
	return []Finding{fine("the agent here answers, and hears a majority of voters")}
}

func capabilities(f *Facts) []Finding {
	a := f.Agent
	if a == nil {
		return nil
	}
	who := "the agent"
	if a.Err != nil {
		who = "this process"
	}
	if a.Unseen {
		return []Finding{warn("the agent's process was not found, so nothing is known of its capabilities", "run sipalive doctor as root, where the agent runs")}
	}
	var hard []string
	for _, c := range a.Missing {
		if c != "CAP_BPF" {
			hard = append(hard, c)
		}
	}
	switch {
	case len(hard) > 0 && a.Err != nil:
		return []Finding{warn(fmt.Sprintf("%s lacks %s, so it cannot tell what the agent would have", who, strings.Join(hard, " and ")), "run sipalive doctor as root")}
	case len(hard) > 0:
		return []Finding{bad(fmt.Sprintf("%s lacks %s", who, strings.Join(hard, " and ")), "start it from its unit: systemctl start sipalive; a drop-in must not narrow CapabilityBoundingSet=")}
	case len(a.Missing) > 0:
		return []Finding{warn(who+" lacks CAP_BPF: the fence is made of lifetimes alone", "add CAP_BPF to CapabilityBoundingSet= of the unit, or to the container's capabilities")}
	}
	return []Finding{fine(who + " has " + strings.Join(Needed, ", "))}
}

func fence(f *Facts) []Finding {
	if f.Config == nil || f.Self == nil || !f.Self.Holder {
		return nil
	}
	if f.Config.Fence == config.FenceNone {
		return []Finding{bad(`fence = "none": an agent that hangs leaves its VIP bound beside the next holder's`, `take fence out of the file; "auto" is the default`)}
	}
	if !f.running() {
		return nil
	}
	st := f.Agent.Status
	text := "fence " + st.Fence
	if st.FenceMeans != "" {
		text += ": " + st.FenceMeans
	}
	switch {
	case st.Fence == "none":
		return []Finding{bad(text, "see capabilities; the kernel needs bpf(2) or addresses with a lifetime")}
	case st.FenceWeak:
		return []Finding{warn(text, "what is in the way stands before this; `sipalive status` shows it too")}
	}
	return []Finding{fine(text)}
}

// The promise of one holder needs every clock to be within 0.05 % of the truth
// (docs/design.md §1). adjtimex(2) steers the frequency by at most 500 ppm; more takes a
// changed tick.
const maxSteered = 500

func clock(f *Facts) []Finding {
	c := f.Clock
	if c == nil {
		return nil
	}
	switch {
	case c.Stalled:
		return []Finding{bad("the boot clock does not advance with the monotonic one", "this kernel or container is no place for an agent: leases are counted on CLOCK_BOOTTIME")}
	case slices.Contains([]string{"jiffies", "refined-jiffies"}, c.Source):
		return []Finding{bad("the clock source is "+c.Source+", which loses time when interrupts are late", "see /sys/devices/system/clocksource/clocksource0/available_clocksource; tsc, kvm-clock, hyperv or acpi_pm will do")}
	case c.Source == "":
		return []Finding{warn("the clock source is not to be seen here", "look at /sys/devices/system/clocksource on the host: tsc, kvm-clock, hyperv or acpi_pm will do")}
	case c.Err != nil:
		return []Finding{warn(fmt.Sprintf("clock source %s; how it is steered was not told: %v", c.Source, c.Err), "run sipalive doctor where adjtimex(2) is allowed, or see chronyc tracking on the host")}
	case math.Abs(c.Steered) >= maxSteered:
		return []Finding{warn(fmt.Sprintf("the clock is steered by %.0f ppm: the machine's own runs wrong by that much", c.Steered), "look after the time daemon (chronyc tracking, ntpq -p), or the hypervisor's clock")}
	case !c.Synced:
		return []Finding{warn("no time daemon keeps this clock; leases do not need it, logs do", "run chrony, ntpd or systemd-timesyncd")}
	}
	return []Finding{fine(fmt.Sprintf("clock source %s, steered by %.0f ppm", c.Source, c.Steered))}
}

func realtime(f *Facts) []Finding {
	if !f.running() || f.Agent.Status.Scheduling == "" {
		return nil
	}
	st := f.Agent.Status
	out := []Finding{fine("the agent runs at " + st.Scheduling)}
	if !strings.HasPrefix(st.Scheduling, "rr ") && !strings.HasPrefix(st.Scheduling, "fifo ") {
		out[0] = warn(fmt.Sprintf("the agent runs at %q: beside a busy FreeSWITCH (rr 89) it comes too late and loses leases", st.Scheduling),
			"CPUSchedulingPolicy=rr and CPUSchedulingPriority=95 in the unit, as it is shipped; a container needs CAP_SYS_NICE or LimitRTPRIO=95 for it")
	}
	if !st.MemoryLocked {
		out = append(out, warn("the agent's memory is not locked: short of memory it waits for the disk", "LimitMEMLOCK=infinity in the unit, as it is shipped"))
	}
	return out
}

// ClockBound is how far apart two clocks may drift at most, in ppm: 0.1 %.
const ClockBound = 1000

// otherwise advises what to do about a clock that was not compared.
func (f *Facts) otherwise(d Drift) string {
	if n := f.Config.Node(d.Node); n != nil && n.Address.Is6() {
		return fmt.Sprintf("start its agent and let TCP port %d pass between the nodes; or run sipalive doctor there too: by its line clock neither may be steered by more than %d ppm",
			f.Config.Port, ClockBound/2)
	}
	return "let ICMP timestamps (types 13 and 14) pass between the nodes"
}

func drift(f *Facts) (out []Finding) {
	for _, d := range f.Drifts {
		switch away := math.Abs(d.PPM); {
		case d.Err != nil:
			out = append(out, warn(fmt.Sprintf("%s: its clock was not measured: %v", d.Node, d.Err), f.otherwise(d)))
		case away-d.Fine > ClockBound:
			out = append(out, bad(fmt.Sprintf("%s: its clock runs %+.0f ppm beside this one (within %.0f): leases may overlap", d.Node, d.PPM, d.Fine),
				"one of the two clocks is broken, or was set meanwhile: ask again; look after the time daemon and the hypervisor on both"))
		case away-d.Fine > ClockBound/2:
			out = append(out, warn(fmt.Sprintf("%s: its clock runs %+.0f ppm beside this one (within %.0f), more than half of what leases allow for", d.Node, d.PPM, d.Fine),
				"look after the time daemon on both nodes"))
		default:
			out = append(out, fine(fmt.Sprintf("%s: its clock runs %+.0f ppm beside this one (within %.0f; %d are allowed)", d.Node, d.PPM, d.Fine, ClockBound)))
		}
	}
	return out
}
