package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/doctor"
	"sipalive/platform"
)

// together runs all at the same time and waits for them.
func together(all ...func()) {
	var wg sync.WaitGroup
	for _, f := range all {
		wg.Go(f)
	}
	wg.Wait()
}

// agentProcess returns the process id in the lock that the agent holds; 0: no agent.
func agentProcess(runDir string) int {
	path := filepath.Join(runDir, lockName)
	if held, err := platform.Locked(path); err != nil || !held {
		return 0
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

const clockSource = "/sys/devices/system/clocksource/clocksource0/current_clocksource"

// adjtimex(2) gives the frequency in units of 2^-16 ppm, and a tick of 10000 µs a hundred
// times a second; each µs more is 100 ppm.
const (
	frequencyUnit = 1 << 16
	usualTick     = 10000
	tickPPM       = 100
)

// findClock looks at how the kernel keeps time, and whether its boot clock advances.
func findClock() *doctor.Clock {
	source, _ := os.ReadFile(clockSource) // not visible in every container
	c := &doctor.Clock{Source: strings.TrimSpace(string(source))}
	var x unix.Timex
	state, err := unix.Adjtimex(&x)
	if c.Err = err; err == nil {
		c.Steered = float64(x.Freq)/frequencyUnit + float64(x.Tick-usualTick)*tickPPM
		c.Synced = state != unix.TIME_ERROR && x.Status&unix.STA_UNSYNC == 0
	}
	before := platform.BootNow()
	time.Sleep(10 * time.Millisecond) // the interval that is measured
	c.Stalled = platform.BootNow()-before < int64(5*time.Millisecond)
	return c
}

// findBound returns the addresses of this machine, with their interfaces.
func findBound() map[netip.Addr]string {
	bound := map[netip.Addr]string{}
	interfaces, err := net.Interfaces()
	if err != nil {
		return bound
	}
	for _, i := range interfaces {
		all, _ := i.Addrs() // the interface may be gone by now
		for _, a := range all {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				bound[p.Addr().Unmap()] = i.Name
			}
		}
	}
	return bound
}

// findLinks looks at the interfaces of the VIPs.
func findLinks(f *doctor.Facts) map[string]doctor.Link {
	links := map[string]doctor.Link{}
	for _, v := range f.Config.VIPs {
		if name := f.InterfaceOf(v); !links[name].Exists {
			links[name] = findLink(name)
		}
	}
	return links
}

// findGateways finds the router on the interface of each VIP. It leaves out interfaces
// that do not exist.
func findGateways(f *doctor.Facts) map[string]netip.Addr {
	routes, err := platform.OpenRoutes()
	if err != nil {
		return nil
	}
	defer routes.Close()
	gateways := map[string]netip.Addr{}
	for _, v := range f.Config.VIPs {
		name := f.InterfaceOf(v)
		switch {
		case v.Gateway.IsValid():
			gateways[v.Name] = v.Gateway
		case f.Links[name].Exists:
			if hop, err := routes.NextHop(name, v.Address.Is6()); err == nil {
				gateways[v.Name] = hop
			}
		}
	}
	return gateways
}

// findLink looks at one interface. It leaves out the VIPs: an address that is its own
// subnet is no subnet.
func findLink(name string) doctor.Link {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return doctor.Link{}
	}
	l := doctor.Link{Exists: true, Running: i.Flags&net.FlagUp != 0 && i.Flags&net.FlagRunning != 0}
	all, _ := i.Addrs()
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.IsSingleIP() || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		l.Prefixes = append(l.Prefixes, p.Masked())
	}
	return l
}

// findNonlocal reads the settings that let a socket be bound to an address which is not
// on this machine.
func findNonlocal() map[string]string {
	found := map[string]string{}
	for _, version := range []string{"ipv4", "ipv6"} {
		if text, err := os.ReadFile("/proc/sys/net/" + version + "/ip_nonlocal_bind"); err == nil {
			found[version] = strings.TrimSpace(string(text))
		}
	}
	return found
}

const sbinNFT = "/usr/sbin/nft"

// findFirewall has nft print its rules. nft is the one program that knows all their
// forms, those of iptables-nft and firewalld included.
func findFirewall(ctx context.Context) *doctor.Firewall {
	ctx, cancel := context.WithTimeout(ctx, asLong)
	defer cancel()
	w := &doctor.Firewall{}
	for _, table := range []string{"ip_tables_names", "ip6_tables_names"} {
		names, _ := os.ReadFile("/proc/net/" + table) // there only if the module is loaded
		w.Legacy = append(w.Legacy, strings.Fields(string(names))...)
	}
	nft := "nft"
	if _, err := os.Stat(sbinNFT); err == nil { // sbin is not in everybody's PATH
		nft = sbinNFT
	}
	cmd := exec.CommandContext(ctx, nft, "-j", "list", "ruleset")
	text, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && len(exit.Stderr) > 0 {
		err = errors.New(strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		w.Err = fmt.Errorf("nft -j list ruleset: %w", err)
		return w
	}
	w.Rules, w.Err = doctor.ParseRuleset(text)
	return w
}
