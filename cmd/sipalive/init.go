package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sipalive/agent"
	"sipalive/config"
)

const defaultFile = "/etc/sipalive/sipalive.toml"

// named is a node or a VIP with its name and address.
type named struct {
	name    string
	address netip.Addr
}

// wish is what the operator asked for, by flags or by answers.
type wish struct {
	cluster   string
	nodes     []named
	witnesses []named
	vips      []named
	iface     string // of the VIPs; "": the interface of the node's address
}

func newInitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a first configuration and the key",
		Long: `Write a first configuration and the key, for a cluster of which this machine is a
node. What flags do not say is asked on the terminal; a PBX, memcached and the
gateway are looked for on this machine. No file is ever overwritten; a key that is
there already is used.`,
		Example: `  sipalive init
  sipalive init --node pbx1=192.0.2.11 --node pbx2=192.0.2.12 --node pbx3=192.0.2.13 --vip vip1=192.0.2.101`,
		Args: arguments(""),
	}
	var w wish
	file := cmd.Flags().String("file", defaultFile, "the configuration to write")
	key := cmd.Flags().String("key-file", defaultKeyFile, "the key to write")
	cmd.Flags().StringVar(&w.cluster, "cluster", "", "name of the cluster (default pbx)")
	nodes := cmd.Flags().StringArray("node", nil, "`NAME=ADDRESS` of a node, once for each")
	witnesses := cmd.Flags().StringArray("witness", nil, "`NAME=ADDRESS` of a machine that votes and holds no VIP")
	vips := cmd.Flags().StringArray("vip", nil, "`NAME=ADDRESS` of a floating address, once for each")
	cmd.Flags().StringVar(&w.iface, "interface", "", "of the floating addresses (default: that of the node's address)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		for _, list := range []struct {
			flag string
			in   []string
			out  *[]named
		}{{"node", *nodes, &w.nodes}, {"witness", *witnesses, &w.witnesses}, {"vip", *vips, &w.vips}} {
			for _, text := range list.in {
				n, err := parseNamed(text, "")
				if err != nil {
					return misuse(cmd, "--%s %v", list.flag, err)
				}
				*list.out = append(*list.out, n)
			}
		}
		if _, err := os.Lstat(*file); err == nil {
			return fmt.Errorf("init: %s is there already, and is left as it is (sipalive check -c %[1]s looks at it, --file names another)", *file)
		}
		m, err := findNetwork()
		if err != nil {
			return err
		}
		if len(w.nodes) == 0 || len(w.vips) == 0 {
			if !isTerminal(cmd.InOrStdin()) {
				return misuse(cmd, "needs --node and --vip, or a terminal to ask on")
			}
			if err := w.ask(cmd.InOrStdin(), cmd.OutOrStdout(), m); err != nil {
				return err
			}
		}
		return initialize(cmd.Context(), cmd.OutOrStdout(), w, m, *file, *key)
	}
	return cmd
}

// parseNamed reads NAME=ADDRESS. If otherwise is a name, ADDRESS alone is enough.
func parseNamed(text, otherwise string) (named, error) {
	name, address, found := strings.Cut(text, "=")
	if !found && otherwise != "" {
		name, address = otherwise, text
	}
	a, err := netip.ParseAddr(strings.TrimSpace(address))
	if err != nil || strings.TrimSpace(name) == "" {
		return named{}, fmt.Errorf("%q: must be NAME=ADDRESS, e.g. pbx1=192.0.2.11", text)
	}
	return named{strings.TrimSpace(name), a.Unmap()}, nil
}

// initialize checks what the operator wants, and then writes it.
func initialize(ctx context.Context, out io.Writer, w wish, m machine, file, key string) error {
	if w.cluster == "" {
		w.cluster = "pbx"
	}
	own := w.own(m)
	if own != nil {
		if err := m.findServices(ctx, own.address); err != nil {
			return err
		}
	}
	text := w.text(m, key)
	cfg, err := checked(file, text)
	if err != nil {
		return err
	}
	made, err := writeKey(key)
	if err != nil {
		return err
	}
	if err := writeNew(file, text, 0o644); err != nil {
		if made {
			err = errors.Join(err, os.Remove(key))
		}
		return err
	}
	var b strings.Builder
	fmt.Fprintln(&b, m.summary())
	if made {
		fmt.Fprintf(&b, "%s: written, mode 0600\n", key)
	} else {
		fmt.Fprintf(&b, "%s: was there, and is used\n", key)
	}
	fmt.Fprintf(&b, "%s: written, and good: cluster %s, nodes: %d, VIPs: %d\n", file, cfg.Cluster, len(cfg.Nodes), len(cfg.VIPs))
	w.advise(&b, m, own)
	w.next(&b, own, file, key)
	_, err = io.WriteString(out, b.String())
	return err
}

// own returns the node that is this machine; nil if none is.
func (w wish) own(m machine) *named {
	for _, list := range [][]named{w.nodes, w.witnesses} {
		for i := range list {
			if m.has(list[i].address) {
				return &list[i]
			}
		}
	}
	return nil
}

// checked does what `sipalive check` does, before there is a file.
func checked(file, text string) (*config.Config, error) {
	cfg, err := config.Parse(file, []byte(text))
	if err == nil {
		err = agent.CheckActions(cfg)
	}
	if err == nil && !onWitness(cfg) {
		err = cfg.CheckInterfaces(interfaceExists)
	}
	if err != nil {
		return nil, fmt.Errorf("init: nothing was written: %w", err)
	}
	return cfg, nil
}

// writeKey creates a key if there is none. A key that is there has to be good.
func writeKey(path string) (made bool, err error) {
	if _, err := os.Lstat(path); err == nil {
		_, err := config.LoadKeyring(path)
		return false, err
	}
	key, err := config.GenerateKey(rand.Reader)
	if err != nil {
		return false, err
	}
	return true, writeNew(path, key+"\n", 0o600)
}

// writeNew writes a file that does not exist yet, as a whole or not at all.
func writeNew(path, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("init: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// advise says what the operator should know about this machine.
func (w wish) advise(out io.Writer, m machine, own *named) {
	if own == nil {
		fmt.Fprintf(out, "note: no node has an address of this machine, so no PBX was looked for\n")
	}
	for _, v := range w.vips {
		switch {
		case m.has(v.address):
			fmt.Fprintf(out, "note: %s %s is on this machine already: what put it there (keepalived, the network configuration) has to let go of it first\n", v.name, v.address)
		case own != nil && !m.reaches(v.address):
			fmt.Fprintf(out, "note: %s %s is in no subnet of this machine: the router needs a route to it\n", v.name, v.address)
		}
	}
	if m.memcached == "" && m.cacheHere != "" {
		fmt.Fprintf(out, "note: memcached is on %s alone, and the file is the same on every node: no action empties it, unless it listens on 127.0.0.1 too (memcached -l)\n", m.cacheHere)
	}
	if voters := len(w.nodes) + len(w.witnesses); voters < 3 {
		fmt.Fprintf(out, "note: %d voters have no majority once one is gone: let a third machine vote (--witness)\n", voters)
	}
}

// next says what is left to do, here and on the other nodes.
func (w wish) next(out io.Writer, own *named, file, key string) {
	fmt.Fprintf(out, "\nOn this node:\n  systemctl enable --now sipalive\n")
	var others []string
	for _, list := range [][]named{w.nodes, w.witnesses} {
		for i := range list {
			if &list[i] != own {
				others = append(others, list[i].address.String())
			}
		}
	}
	if len(others) == 0 {
		return
	}
	copies := fmt.Sprintf("scp -p %s %s root@$n:%s/", key, file, filepath.Dir(file))
	if filepath.Dir(key) != filepath.Dir(file) {
		copies = fmt.Sprintf("scp -p %s root@$n:%[1]s && scp -p %s root@$n:%[2]s", key, file)
	}
	each := "for n in " + strings.Join(others, " ") + "; do"
	fmt.Fprintf(out, `For the others, once sipalive is installed there:
  %s %s; done
  %[1]s ssh root@$n sipalive check -c %[3]s; done
  %[1]s ssh root@$n systemctl enable --now sipalive; done
`, each, copies, file)
}

// interfaceOf returns the VIPs' interface for the file; "" if it is that of the node's
// address.
func (w wish) interfaceOf(m machine) string {
	if own := w.own(m); own != nil && m.interfaceOf(*own) == w.iface {
		return ""
	}
	return w.iface
}
