package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sipalive/config"
	"sipalive/keepalived"
)

func newImportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import KEEPALIVED.CONF",
		Short: "Print the configuration that comes nearest to a keepalived.conf",
		Long: `Print the configuration that comes nearest to a keepalived.conf. What has no
equivalent stands at its head, one line each, with the reason. Nothing is changed
on this machine.

The nodes are unicast_src_ip and unicast_peer; where there are none, name every
node with --node, the one that the file is from first.`,
		Example: `  sipalive import /etc/keepalived/keepalived.conf > sipalive.toml
  sipalive import keepalived.conf --node pbx1=192.0.2.11 --node pbx2=192.0.2.12`,
		Args: arguments("KEEPALIVED.CONF"),
	}
	o := keepalived.Options{AddressesOf: addressesOf}
	cmd.Flags().StringVar(&o.Cluster, "cluster", "pbx", "name of the cluster")
	cmd.Flags().StringVar(&o.KeyFile, "key-file", defaultKeyFile, "the key file of every node")
	cmd.Flags().StringVar(&o.ConfigID, "config-id", "", "keepalived's own --config-id, for lines that begin with @")
	nodes := cmd.Flags().StringArray("node", nil, "`NAME=ADDRESS` of a node, once for each")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, n := range *nodes {
			node, err := namedNode(n)
			if err != nil {
				return misuse(cmd, "%v", err)
			}
			o.Nodes = append(o.Nodes, node)
		}
		o.File = args[0]
		o.Host, _ = os.Hostname() // "": the node is called node1
		text, err := importFile(args[0], o)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(cmd.OutOrStdout(), text)
		return err
	}
	return cmd
}

// maxImported is more bytes than any keepalived.conf has.
const maxImported = 1<<20 + 1

func importFile(path string, o keepalived.Options) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	defer f.Close()
	in, err := io.ReadAll(io.LimitReader(f, maxImported))
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	text, err := keepalived.Import(string(in), o)
	if err != nil {
		return "", fmt.Errorf("import %s: %w", path, err)
	}
	if _, err := config.Parse("what came out of it", []byte(text)); err != nil {
		return "", fmt.Errorf("import %s: %w", path, err)
	}
	return text, nil
}

func namedNode(text string) (keepalived.Node, error) {
	name, address, _ := strings.Cut(text, "=")
	a, err := netip.ParseAddr(address)
	if err != nil || name == "" {
		return keepalived.Node{}, fmt.Errorf("--node %q: must be NAME=ADDRESS, e.g. pbx1=192.0.2.11", text)
	}
	return keepalived.Node{Name: name, Address: a}, nil
}

// addressesOf returns the addresses of an interface; none if there is no such interface
// here.
func addressesOf(iface string) (out []netip.Addr) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return nil
	}
	all, _ := i.Addrs() // the interface may be gone by now
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}
