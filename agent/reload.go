package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sipalive/arp"
	"sipalive/config"
	"sipalive/elect"
	"sipalive/eventsocket"
	"sipalive/keyring"
)

// File is a configuration as it was read for this node, with its keys.
type File struct {
	Config *config.Config
	Self   *config.Node
	Keys   keyring.Ring
	Relay  arp.RelayLink  // of a reload: the path of heartbeats through the gateway
	Roots  *x509.CertPool // trusted roots for SIP over TLS; nil: the system's
	// FreeSWITCHPassword is called at each use.
	FreeSWITCHPassword func() (string, error)
}

// settled is the configuration in force and what follows from it.
type settled struct {
	config      *config.Config
	names       *names
	roots       *x509.CertPool
	eventSocket eventsocket.Client
	relay       arp.RelayLink
}

// Config returns the configuration in force. Call it at each use, because a reload
// replaces the configuration.
func (a *Agent) Config() *config.Config { return a.inForce.Load().config }

func (a *Agent) names() *names { return a.inForce.Load().names }

// Reload reads the file again and takes it while the agent runs (§4.9). The result is the
// same as after a restart with that file, and what is held stays held. A bad file, or one
// that needs a restart, changes nothing. The text says what is different now.
func (a *Agent) Reload(ctx context.Context) (string, error) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	f, err := a.Load()
	if err != nil {
		return "", err
	}
	before := a.Config()
	if why := needsRestart(before, f.Config, a.Self, f.Self); why != "" {
		return "", fmt.Errorf("reload %s: %s (nothing was changed; restart the agents one by one)", f.Config.File, why)
	}
	// Once the loop has the request it carries it out, whether or not the caller still
	// waits. So the wait for the result is not cancelled.
	if err := a.ask(context.WithoutCancel(ctx), func() { err = a.reconfigure(f) }); err != nil {
		return "", fmt.Errorf("reload %s: %w", f.Config.File, err)
	}
	if err != nil {
		return "", fmt.Errorf("reload %s: %w (nothing was changed)", f.Config.File, err)
	}
	a.keys.replace(f.Keys)
	text := differences(before, f.Config)
	a.recorder.reloaded(text)
	return text, nil
}

// needsRestart says what in a new file a running agent cannot take; "" for nothing.
func needsRestart(was, is *config.Config, self, now *config.Node) string {
	switch {
	case is.Cluster != was.Cluster:
		return fmt.Sprintf("cluster is %q, the running agent's %q", is.Cluster, was.Cluster)
	case now.Name != self.Name:
		return fmt.Sprintf("this node is %s, and was %s", now.Name, self.Name)
	case now.Address != self.Address || now.Address2 != self.Address2:
		return fmt.Sprintf("the address of %s is another", self.Name)
	case now.Holder != self.Holder:
		return fmt.Sprintf("holder of %s is %t, and was %t", self.Name, now.Holder, self.Holder)
	case is.Port != was.Port:
		return fmt.Sprintf("port is %d, and was %d", is.Port, was.Port)
	case is.Fence != was.Fence:
		return fmt.Sprintf("fence is %q, and was %q", is.Fence, was.Fence)
	case is.Control != was.Control:
		return "[control] is another"
	}
	return ""
}

// reconfigure puts a new configuration in force, between two steps of the loop. The steps that
// can fail come first; a failure leaves nothing behind that matters.
func (a *Agent) reconfigure(f File) error {
	names := newNames(f.Config, a.names())
	ids := slices.Sorted(maps.Keys(names.byID))
	if _, err := a.Directory.OpenLeases(ids); err != nil {
		return err
	}
	if _, err := a.Directory.OpenGrants(ids); err != nil {
		return err
	}
	defer a.binder.changed()
	unfence, err := a.binder.fenceMore(names)
	if err != nil {
		return err
	}
	if err := a.network.Reconfigure(Peers(f.Config, a.Self), f.Keys); err != nil {
		return errors.Join(err, unfence())
	}
	a.inForce.Store(&settled{f.Config, names, f.Roots, eventsocket.Client{Address: f.Config.FreeSWITCH.Address, Password: f.FreeSWITCHPassword}, f.Relay})
	a.Announcer.SetRefresh(f.Config.Announce.Refresh)
	a.Announcer.SetLimit(f.Config.Announce.Limit)
	a.watch.Configure(Links(f.Config), f.Relay, Neighbours(f.Config, f.Self), f.Config.Announce.Refresh)
	a.Runner.SetFreeSWITCH(f.Config.FreeSWITCH.Address, f.FreeSWITCHPassword)
	a.Runner.SetUserAgent(f.Config.SIP.UserAgent)
	a.Runner.SetMail(MailServer(f.Config))
	a.recorder.post(a.recorder.notify.reconfigure)
	a.probes.reconfigure(f.Config, f.Roots)
	a.sockets.reconfigure()
	a.vipTargets.reconfigure()
	a.checks.reconfigure(f.Config)
	a.step(elect.Reconfigure{Config: ElectConfig(f.Config, f.Self, f.Relay)})
	return nil
}

// differences says in words what a reload changed.
func differences(was, is *config.Config) string {
	var said []string
	say := func(what string, before, after []string) {
		for _, n := range after {
			if !slices.Contains(before, n) {
				said = append(said, what+" "+n+" added")
			}
		}
		for _, n := range before {
			if !slices.Contains(after, n) {
				said = append(said, what+" "+n+" removed")
			}
		}
	}
	say("node", each(was.Nodes, func(n config.Node) string { return n.Name }), each(is.Nodes, func(n config.Node) string { return n.Name }))
	say("VIP", each(was.VIPs, vipWords), each(is.VIPs, vipWords))
	say("role", each(was.Roles, func(r config.Role) string { return r.Name }), each(is.Roles, func(r config.Role) string { return r.Name }))
	switch {
	case was.Digest() == is.Digest():
		said = append(said, "nothing is different")
	case len(said) == 0:
		said = append(said, "settings changed")
	}
	return "reloaded: " + strings.Join(said, ", ")
}

func vipWords(v config.VIP) string { return fmt.Sprintf("%s (%s)", v.Name, v.Address) }

func each[T any](in []T, word func(T) string) (out []string) {
	for _, v := range in {
		out = append(out, word(v))
	}
	return out
}
