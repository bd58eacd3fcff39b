package main

import (
	"fmt"
	"os"
	"strings"

	"sipalive/agent"
	"sipalive/config"
	"sipalive/platform"
	"sipalive/sipcheck"
)

// loadFile reads the file for this node, and the keys that the file names. It is called
// at the start and at each reload.
func loadFile(f runFlags) (agent.File, error) {
	c, self, err := loadNode(f)
	if err != nil {
		return agent.File{}, err
	}
	keys, err := config.LoadKeyring(c.KeyFile)
	if err != nil {
		return agent.File{}, err
	}
	roots, err := sipcheck.LoadRoots(c.SIP.TLSCA)
	if err != nil {
		return agent.File{}, err
	}
	return agent.File{Config: c, Self: self, Keys: keys, Roots: roots,
		FreeSWITCHPassword: func() (string, error) { return readPassword(c.FreeSWITCH.PasswordFile) }}, nil
}

// loadNode reads the file and finds this node in it. Each VIP without an interface gets
// the interface of the node's address.
func loadNode(f runFlags) (*config.Config, *config.Node, error) {
	c, err := config.Load(f.file)
	if err != nil {
		return nil, nil, err
	}
	if err := agent.CheckActions(c); err != nil {
		return nil, nil, err
	}
	local, err := platform.LocalAddresses()
	if err != nil {
		return nil, nil, err
	}
	self, err := c.Self(f.node, local)
	if err != nil {
		return nil, nil, err
	}
	if self.Holder { // a witness binds nothing
		if err := c.CheckInterfaces(interfaceExists); err != nil {
			return nil, nil, err
		}
	}
	for i := range c.VIPs {
		if c.VIPs[i].Interface != "" {
			continue
		}
		name, err := platform.InterfaceOf(self.Address)
		if err != nil {
			return nil, nil, err
		}
		c.VIPs[i].Interface = name
	}
	return c, self, nil
}

func readPassword(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the event socket's password: %w", err)
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}
