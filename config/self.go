package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxListed is how many names or addresses an error lists at most.
const maxListed = 8

// Self returns the node that this machine is. That is the node called name (--node) or,
// if name is empty, the only node whose address or address2 is among local, the machine's
// own addresses. The errors say what to do.
func (c *Config) Self(name string, local []netip.Addr) (*Node, error) {
	if name != "" {
		if n := c.Node(name); n != nil {
			return n, nil
		}
		return nil, fmt.Errorf("%s: no node is called %q; --node takes one of %s",
			printable(c.File), name, listed(c.nodeNames()))
	}
	var found []*Node
	for i := range c.Nodes {
		if c.Nodes[i].isLocal(local) {
			found = append(found, &c.Nodes[i])
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fmt.Errorf("%s: no node has an address of this machine (%s); put the machine's static address into its [[node]], or name the node with --node",
			printable(c.File), listed(addressTexts(local)))
	default:
		return nil, fmt.Errorf("%s: nodes %s and %s both have an address of this machine; name the right one with --node",
			printable(c.File), found[0].Name, found[1].Name)
	}
}

func (n *Node) isLocal(local []netip.Addr) bool {
	return slices.ContainsFunc(local, func(a netip.Addr) bool {
		a = a.Unmap()
		return a.IsValid() && (a == n.Address || a == n.Address2)
	})
}

// CheckInterfaces calls exists for each interface that a VIP names, in file order. It
// reports the first missing one by file and line. Only the agent's own machine can
// answer, so Parse does not do it.
func (c *Config) CheckInterfaces(exists func(string) bool) error {
	for _, v := range c.VIPs {
		if v.Interface != "" && !exists(v.Interface) {
			return &Error{File: c.File, Line: v.interfaceLine, Text: fmt.Sprintf(
				"interface %q of vip %q: this machine has no such interface; see `ip link`, or leave interface out to use that of the node's address",
				v.Interface, v.Name)}
		}
	}
	return nil
}

func (c *Config) nodeNames() []string {
	names := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		names[i] = n.Name
	}
	return names
}

func addressTexts(local []netip.Addr) []string {
	texts := make([]string, len(local))
	for i, a := range local {
		texts[i] = a.String()
	}
	return texts
}

// listed joins words for a message and keeps the message short.
func listed(words []string) string {
	switch {
	case len(words) == 0:
		return "none"
	case len(words) > maxListed:
		return strings.Join(words[:maxListed], ", ") + fmt.Sprintf(" and %d more", len(words)-maxListed)
	default:
		return strings.Join(words, ", ")
	}
}
