package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sipalive/agent"
	"sipalive/arp"
	"sipalive/config"
	"sipalive/control"
	"sipalive/elect"
	"sipalive/eventsocket"
	"sipalive/hooks"
	"sipalive/keyring"
	"sipalive/member"
	"sipalive/platform"
	"sipalive/sipcheck"
	"sipalive/vip"
	"sipalive/vip/fence"
)

const (
	defaultStateDir = "/var/lib/sipalive"
	lockName        = "lock"
	fenceName       = "fence"
)

type runFlags struct {
	file, node, runDir, stateDir string
}

func newRunCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Run the agent on this node",
		Args:  arguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("state-dir") && cmd.Flags().Changed("run-dir") {
				f.stateDir = filepath.Join(f.runDir, "state")
			}
			return runAgent(cmd.Context(), f, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVarP(&f.file, "config", "c", "", "configuration file, the same on every node")
	cmd.Flags().StringVar(&f.node, "node", "", "this node's name (default: the node whose address is on this machine)")
	cmd.Flags().StringVar(&f.runDir, "run-dir", defaultRunDir, "runtime directory, a tmpfs")
	cmd.Flags().StringVar(&f.stateDir, "state-dir", defaultStateDir, "state directory (default with --run-dir alone: RUN_DIR/state)")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

// runAgent constructs everything, runs it, and hands over when it is asked to end.
func runAgent(ctx context.Context, f runFlags, stderr io.Writer) error {
	log := newLog(stderr)
	heard := hearSignals()
	defer heard.stop()
	file, err := loadFile(f)
	if err != nil {
		return err
	}
	c, self := file.Config, file.Self
	if missing := platform.MissingCapabilities("CAP_NET_ADMIN", "CAP_NET_RAW"); len(missing) > 0 {
		return fmt.Errorf("run %s: %s missing (run as root or from the systemd unit)", self.Name, strings.Join(missing, " and "))
	}
	dir, err := agent.OpenDirectory(f.runDir, f.stateDir)
	if err != nil {
		return err
	}
	unlock, err := platform.Lock(filepath.Join(f.runDir, lockName))
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }()

	if err := refuseSecond(self, c.Port); err != nil {
		return err
	}
	endRunaway(self.Name, stderr, log)
	parts := agent.Parts{Config: c, Self: self, Directory: dir, Log: log, Now: now, Journal: control.NewJournal(control.DefaultEvents), Version: version}
	parts.MemoryLocked = settleIn(self.Name, f.runDir, log)
	if parts.Relay, err = agent.RelayLink(c, self); err != nil {
		return err
	}
	closeHost, err := openHost(&parts, file, log)
	if err != nil {
		return err
	}
	defer closeHost()
	if err := openMachine(&parts); err != nil {
		return err
	}
	if err := openFence(&parts, log); err != nil {
		return err
	}
	left := false
	defer func() { closeFence(&parts, left, log) }()
	if err := sweep(&parts, log); err != nil {
		return err
	}
	parts.Keyring = file.Keys
	parts.Network = func(deliver func(elect.Received), onKeys func(elect.Node, keyring.Message), relay func(elect.Node, []byte) error) (*member.Network, error) {
		m := memberConfig(&parts, file.Keys, deliver)
		m.OnKeys, m.Relay = onKeys, relay
		return member.Start(m)
	}
	parts.Load = func() (agent.File, error) {
		file, err := loadFile(f)
		if err == nil {
			file.Relay, err = agent.RelayLink(file.Config, file.Self)
		}
		return file, err
	}
	listener, warning, err := control.Listen(f.runDir, c.Control.Group)
	if err != nil {
		return err
	}
	if warning != "" {
		log.Warn(warning, "node", self.Name)
	}
	parts.Listener = listener
	a := agent.New(parts)
	err = runUntilSignal(ctx, a, heard, log)
	left = a.Left()
	return err
}

// refuseSecond finds another agent on this node that has its own runtime directory. It
// runs before sweep would take away the addresses which that agent holds.
func refuseSecond(self *config.Node, port uint16) error {
	probe, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(self.Address, port)))
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w (the address of %s is not on this machine, or not yet)", err, self.Name)
	case err != nil:
		return fmt.Errorf("%w (one agent per node: does another run here?)", err)
	}
	return probe.Close()
}

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

func now() elect.Instant { return elect.Instant(platform.BootNow()) }

// openHost opens the parts that reach the kernel and the network on this host.
func openHost(p *agent.Parts, file agent.File, log *slog.Logger) (closeAll func(), err error) {
	var managed []vip.Address
	for _, v := range p.Config.VIPs {
		managed = append(managed, vip.Address{IP: v.Address, Interface: v.Interface})
	}
	if p.Table, err = vip.Open(managed); err != nil {
		return nil, err
	}
	if p.Conntrack, err = vip.Open(managed); err != nil {
		return nil, err
	}
	if p.Alarms, err = platform.OpenAlarms(); err != nil {
		return nil, err
	}
	p.Ends = agent.NewLeaseEnds(p.Now)
	p.Announcer, err = arp.New(arp.Options{Refresh: p.Config.Announce.Refresh, Limit: p.Config.Announce.Limit, May: p.Ends.Ahead, OnError: func(err error) {
		log.Warn("announce", "node", p.Self.Name, "err", err)
	}})
	if err != nil {
		return nil, err
	}
	p.Watch = watchOf(p)
	journal, err := p.Directory.OpenActions()
	if err != nil {
		return nil, err
	}
	p.Roots = file.Roots
	p.EventSocket = eventsocket.Client{Address: p.Config.FreeSWITCH.Address, Password: file.FreeSWITCHPassword}
	p.Runner = hooks.NewRunner(hooks.Options{
		Mail:               agent.MailServer(p.Config),
		Host:               p.Self.Name,
		Service:            hooksService(p.Directory.Run()),
		FreeSWITCHAddress:  p.Config.FreeSWITCH.Address,
		FreeSWITCHPassword: file.FreeSWITCHPassword,
		Now:                platform.BootNow,
		UserAgent:          p.Config.SIP.UserAgent,
		Answers: func(ctx context.Context, at netip.AddrPort, userAgent string) error {
			_, err := sipcheck.Ping(ctx, at, sipcheck.PingOptions{Local: agent.LocalFor(p.Self, at.Addr()), Timeout: pingTimeout, UserAgent: userAgent})
			return err
		},
		Journal:      journal,
		JournalError: func(err error) { log.Warn("keep the actions' journal", "node", p.Self.Name, "err", err) },
	})
	return func() {
		_ = p.Announcer.Close()
		_ = p.Alarms.Close()
		p.Conntrack.Close()
		p.Table.Close()
	}, nil
}

// watchOf returns the function that opens the network watch, which asks the routers and
// hears rivals.
func watchOf(p *agent.Parts) func(agent.Hearing) (*arp.Watch, error) {
	o := arp.WatchOptions{Links: agent.Links(p.Config), Relay: p.Relay, Peers: agent.Neighbours(p.Config, p.Self), Announcer: p.Announcer, Alarms: p.Alarms,
		Refresh: p.Config.Announce.Refresh, Now: func() time.Duration { return time.Duration(platform.BootNow()) }}
	return func(h agent.Hearing) (*arp.Watch, error) {
		o.OnRouter, o.OnRival, o.OnGateway, o.OnEvidence, o.OnSign = h.OnRouter, h.OnRival, h.OnGateway, h.OnEvidence, h.OnSign
		return arp.OpenWatch(o)
	}
}

// pingTimeout bounds one OPTIONS to a FreeSWITCH profile that was just started.
const pingTimeout = 400 * time.Millisecond

func readPassword(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the event socket's password: %w", err)
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}

// openMachine restores what an earlier agent left and starts the election's machine with
// it. The machine goes on asking for a lease only if nothing of it is missing: its
// address is still bound, and its end is ahead.
func openMachine(p *agent.Parts) error {
	runtime, durable, err := p.Directory.Restore()
	if err != nil {
		return err
	}
	cfg := agent.ElectConfig(p.Config, p.Self, p.Relay)
	var ids []elect.VIPID
	roles := map[elect.VIPID]bool{}
	for _, v := range cfg.VIPs {
		ids = append(ids, v.ID)
		roles[v.ID] = v.Role
	}
	if err := dropOthers(p, ids); err != nil {
		return err
	}
	leases, err := p.Directory.OpenLeases(ids)
	if err != nil {
		return err
	}
	granted, err := p.Directory.OpenGrants(ids)
	if err != nil {
		return err
	}
	bound, err := p.Table.Bound()
	if err != nil {
		return err
	}
	isBound := inPlace(bound)
	if runtime != nil {
		for _, h := range leases {
			if h.Until > now() && (isBound[h.VIP] || roles[h.VIP]) {
				p.Adopted = append(p.Adopted, h)
			}
		}
	}
	if p.Rand, err = newRand(); err != nil {
		return err
	}
	p.Machine, err = elect.New(cfg, elect.Restored{Runtime: runtime, Durable: durable, Held: p.Adopted, Granted: granted},
		elect.Instance(p.Rand.Uint64()|1), now(), p.Rand)
	return err
}

// inPlace returns the VIPs that are bound as the agent binds them. If there is a stray
// copy beside it, the binder's first round removes the copy.
func inPlace(bound []vip.Bound) map[elect.VIPID]bool {
	is := map[elect.VIPID]bool{}
	for _, b := range bound {
		if b.AsBoundByBind {
			is[elect.VIPID(b.IP.String())] = true
		}
	}
	return is
}

// dropOthers unbinds what an agent with another file held here: no lease of this agent
// will ever end it.
func dropOthers(p *agent.Parts, ids []elect.VIPID) error {
	for _, id := range p.Directory.LeftBound(ids) {
		ip, err := netip.ParseAddr(string(id))
		if err != nil {
			continue // a role
		}
		t, err := vip.Open([]vip.Address{{IP: ip}})
		if err != nil {
			return err
		}
		err = t.Unbind(vip.Address{IP: ip})
		t.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// openFence closes the kernel to every VIP without a lease and replaces the fence of an
// earlier agent. A lease for which the machine goes on asking keeps its end.
func openFence(p *agent.Parts, log *slog.Logger) (err error) {
	until := map[elect.VIPID]elect.Instant{}
	for _, h := range p.Adopted {
		until[h.VIP] = h.Until
	}
	vips := map[netip.Addr]int64{}
	for _, v := range p.Config.VIPs {
		vips[v.Address] = int64(until[elect.VIPID(v.Address.String())])
	}
	p.Fence, err = fence.Open(fence.Options{
		Mode: fence.Mode(p.Config.Fence), VIPs: vips, Record: filepath.Join(p.Directory.Run(), fenceName),
	})
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if p.Fence.Weak() {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, "fence "+p.Fence.Kind(), "node", p.Self.Name, "means", p.Fence.Explain())
	return nil
}

// closeFence removes the fence if no VIP is bound that could need it, unless a successor
// is to find it.
func closeFence(p *agent.Parts, left bool, log *slog.Logger) {
	bound, err := p.Table.Bound()
	if err == nil {
		err = p.Fence.Close(!left && len(bound) == 0)
	}
	if err != nil {
		log.Warn("remove the fence", "node", p.Self.Name, "err", err)
	}
}

func newRand() (*rand.Rand, error) {
	var seed [32]byte
	if _, err := crand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("read random numbers: %w", err)
	}
	return rand.New(rand.NewChaCha8(seed)), nil
}

// sweep removes every configured VIP that is bound without a lease.
func sweep(p *agent.Parts, log *slog.Logger) error {
	adopted := map[netip.Addr]bool{}
	for _, h := range p.Adopted {
		if ip, err := netip.ParseAddr(string(h.VIP)); err == nil {
			adopted[ip] = true
		}
	}
	removed, err := p.Table.Sweep(func(ip netip.Addr) bool { return adopted[ip] })
	for _, b := range removed {
		log.Warn("removed an address found bound without a lease", "node", p.Self.Name, "vip", b.IP.String(), "from", b.Interface)
	}
	return err
}

func memberConfig(p *agent.Parts, keys [][]byte, deliver func(elect.Received)) member.Config {
	seed := p.Rand.Uint64()
	random := rand.New(rand.NewPCG(seed, p.Rand.Uint64()))
	m := member.Config{
		Cluster: p.Config.Cluster, Keys: keys, Port: p.Config.Port, Self: elect.Node(p.Self.Name),
		SelfAddress: p.Self.Address, SelfAddress2: p.Self.Address2, Instance: p.Machine.Instance(), Random: random.Uint64, Deliver: deliver,
		Peers: agent.Peers(p.Config, p.Self),
	}
	return m
}

// handOverPatience bounds a stop, in addition to the time that the successors need.
const handOverPatience = 5 * time.Second

// signals are the signals that an agent obeys.
type signals struct{ end, hangup chan os.Signal }

// hearSignals listens for signals from now on. It is called at the very start, because by
// default they would end a process that has leases of an earlier agent to hand over.
func hearSignals() signals {
	s := signals{make(chan os.Signal, 2), make(chan os.Signal, 1)}
	signal.Notify(s.end, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR2)
	signal.Notify(s.hangup, syscall.SIGHUP)
	return s
}

func (s signals) stop() {
	signal.Stop(s.end)
	signal.Stop(s.hangup)
}

// runUntilSignal hands over at the first SIGTERM or SIGINT and ends at once at the
// second. SIGUSR2 ends the agent at once too, and leaves everything as it is for a
// successor that starts within the lease.
func runUntilSignal(ctx context.Context, a *agent.Agent, heard signals, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go reloadOnHangup(ctx, a, heard.hangup, log)
	var signalled atomic.Bool
	go func() {
		select {
		case <-ctx.Done():
			return
		case s := <-heard.end:
			signalled.Store(true)
			if s == syscall.SIGUSR2 {
				log.Info("leaving everything to a successor", "reason", s.String())
				a.Leave()
				cancel()
				return
			}
			log.Info("handing over", "reason", s.String())
		}
		// The unit's TimeoutStopSec= is meant for agents without slow actions.
		_ = platform.NotifySystemd(fmt.Sprintf("STOPPING=1\nEXTEND_TIMEOUT_USEC=%d", (handOverPatience + a.EndPatience()).Microseconds()))
		go func() {
			c, end := context.WithTimeout(ctx, a.StopPatience()+handOverPatience)
			defer end()
			if err := a.Stop(c); err != nil && !errors.Is(err, context.Canceled) {
				log.Warn("hand over", "err", err)
			}
			cancel()
		}()
		select {
		case <-ctx.Done():
		case <-heard.end:
			cancel()
		}
	}()
	err := a.Run(ctx)
	if err == nil && a.Stopped() && !signalled.Load() {
		return errStopped
	}
	return err
}
