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

// agentProcess is the id in the lock that the agent holds; 0: none.
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

// steered: adjtimex(2) has the frequency in units of 2^-16 ppm, and a tick of
// 10000 µs a hundred times a second, whose every µs more is 100 ppm.
const (
	frequencyUnit = 1 << 16
	usualTick     = 10000
	tickPPM       = 100
)

// findClock looks at how the kernel keeps time, and whether its boot clock goes on.
func findClock() *doctor.Clock {
	source, _ := os.ReadFile(clockSource) // not to be seen in every container
	c := &doctor.Clock{Source: strings.TrimSpace(string(source))}
	var x unix.Timex
	state, err := unix.Adjtimex(&x)
	if c.Err = err; err == nil {
		c.Steered = float64(x.Freq)/frequencyUnit + float64(x.Tick-usualTick)*tickPPM
		c.Synced = state != unix.TIME_ERROR && x.Status&unix.STA_UNSYNC == 0
	}
	before := platform.BootNow()
	time.Sleep(10 * time.Millisecond) // what is measured
	c.Stalled = platform.BootNow()-before < int64(5*time.Millisecond)
	return c
}

// findBound are the addresses of this machine, with their interfaces.
func findBound() map[netip.Addr]string {
	bound := map[netip.Addr]string{}
	interfaces, err := net.Interfaces()
	if err != nil {
		return bound
	}
	for _, i := range interfaces {
		all, _ := i.Addrs() // it may be gone meanwhile
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

// findGateways looks who routes on the interfaces of the VIPs; of one that is not
// there, nothing.
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

// findLink leaves out the VIPs: an address that is its own subnet is no subnet.
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

// findNonlocal reads what lets a socket be bound to an address that is not here.
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

// findFirewall has nft print its rules: the one program that knows all of their
// forms, those of iptables-nft and firewalld included.
func findFirewall(ctx context.Context) *doctor.Firewall {
	ctx, cancel := context.WithTimeout(ctx, asLong)
	defer cancel()
	w := &doctor.Firewall{}
	for _, table := range []string{"ip_tables_names", "ip6_tables_names"} {
		names, _ := os.ReadFile("/proc/net/" + table) // there if the module is
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
