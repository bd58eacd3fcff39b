package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// settings returns a node's addresses, routes and rules, without those of the VIPs.
func (c *Cluster) settings(node int) ([]string, error) {
	return c.Node(node).Settings(func(dev string, addr netip.Addr) bool {
		return slices.Contains(c.VIPs, addr) || slices.Contains(c.opts.Ours, addr) || slices.Contains(c.opts.Aside, dev)
	})
}

// Untouched returns an error if any node's addresses, routes or rules, other than those
// of the VIPs, differ from what they were before its agent was first started.
func (c *Cluster) Untouched() (err error) {
	for i, before := range c.before {
		now, e := c.settings(i)
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		for _, line := range different(before, now) {
			err = errors.Join(err, fmt.Errorf("foreign settings of %s: %s", c.Node(i).Name, line))
		}
	}
	return err
}

func different(before, now []string) (lines []string) {
	for _, l := range before {
		if !slices.Contains(now, l) {
			lines = append(lines, "gone: "+l)
		}
	}
	for _, l := range now {
		if !slices.Contains(before, l) {
			lines = append(lines, "new: "+l)
		}
	}
	if len(lines) == 0 && len(now) != len(before) { // a line that is there twice
		lines = append(lines, fmt.Sprintf("%d, were %d:\n%s", len(now), len(before), strings.Join(now, "\n")))
	}
	return lines
}
