// Package agent is the loop: events in, effects out. Package elect decides. The loop
// carries the decisions out through the other rooms. Log, journal, hooks and status hang
// off its side and never delay it.
package agent

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sipalive/arp"
	"sipalive/config"
	"sipalive/control"
	"sipalive/elect"
	"sipalive/eventsocket"
	"sipalive/hooks"
	"sipalive/keyring"
	"sipalive/member"
	"sipalive/platform"
	"sipalive/vip"
	"sipalive/vip/fence"
)

// Parts is what an agent is made of; cmd constructs it. Every field is required unless
// its comment says otherwise.
type Parts struct {
	Config      *config.Config // at the start; Agent.Config returns the one in force
	Self        *config.Node
	Directory   *Directory
	Machine     *elect.Machine
	Adopted     []elect.HeldVIP // the leases of an earlier agent that the machine goes on asking for
	Table       *vip.Table
	Fence       *fence.Fence
	Conntrack   *vip.Table // a table of its own, so that connection tracking never delays an address
	Announcer   *arp.Announcer
	Ends        *LeaseEnds
	Alarms      *platform.Alarms // on the clock that Now reads
	Watch       func(Hearing) (*arp.Watch, error)
	Runner      *hooks.Runner
	Roots       *x509.CertPool     // at the start: trusted roots for SIP over TLS; nil: the system's
	EventSocket eventsocket.Client // at the start: FreeSWITCH's, to ask whether it is ready
	Keyring     keyring.Ring       // at the start
	Network     func(deliver func(elect.Received), onKeys func(elect.Node, keyring.Message), relay func(elect.Node, []byte) error) (*member.Network, error)
	Relay       arp.RelayLink        // at the start: the path of heartbeats through the gateway (§4.6)
	Load        func() (File, error) // reads the configuration again, for a reload
	Listener    net.Listener
	Journal     *control.Journal
	Log         *slog.Logger
	Rand        *rand.Rand
	Now         func() elect.Instant // the boot clock

	Version      string // shown on the status page
	MemoryLocked bool   // this process's pages stay in memory
}

// Agent is one node's agent.
type Agent struct {
	Parts
	inForce    atomic.Pointer[settled] // a reload replaces it as a whole
	network    *member.Network
	alone      *survivors
	server     *control.Server
	binder     *binder
	watch      *arp.Watch
	probes     *probes
	sockets    *sockets
	vipTargets *vipTargets
	checks     *checks
	actions    *actions
	locks      *locks
	keys       *keys
	phones     *phoneBook
	timelines  *timelines
	recorder   *recorder
	durables   *durableWriter

	packets chan elect.Event // from the network; dropped when the queue is full, as packets are
	events  chan elect.Event // from this agent's own workers; never dropped
	queries chan func()      // questions to the machine, answered between two steps
	due     chan struct{}    // the machine's deadline has come

	grid      grid // the grid of all regular probes, see sipcheck.Options
	reloading sync.Mutex
	waitsOut  sync.Mutex // held by a drain that waits for calls to end
	unstored  bool       // the runtime directory refused the last record
	waiting   map[uint64]chan<- elect.CommandAnswer
	commandID uint64
	stopped   chan struct{} // closed when an operator's stop has let everything go
	ended     chan struct{} // the loop has ended
	left      atomic.Bool   // set by Leave: a successor takes over what is held here
	stats     counters
}

// Leave makes the agent end without letting go of anything, for a successor that starts
// at once. Addresses, leases and the fence stay. If no successor comes, they end with the
// lease. Cancel Run's context next.
func (a *Agent) Leave() { a.left.Store(true) }

// Left reports whether Leave was called.
func (a *Agent) Left() bool { return a.left.Load() }

// New puts the parts together. Nothing runs before Run.
func New(p Parts) *Agent {
	a := &Agent{
		Parts: p, packets: make(chan elect.Event, 1024), events: make(chan elect.Event, 256), queries: make(chan func(), 16), due: make(chan struct{}, 1),
		waiting: map[uint64]chan<- elect.CommandAnswer{}, stopped: make(chan struct{}), ended: make(chan struct{}),
	}
	a.inForce.Store(&settled{p.Config, newNames(p.Config, nil), p.Roots, p.EventSocket, p.Relay})
	a.recorder = newRecorder(a)
	a.binder = newBinder(a)
	a.alone = newSurvivors(a)
	a.probes = newProbes(a)
	a.sockets = newSockets(a)
	a.vipTargets = newVIPTargets(a)
	a.checks = newChecks(a)
	a.actions = newActions(a)
	a.locks = newLocks(a)
	a.keys = newKeys(a)
	a.phones = newPhoneBook(a)
	a.timelines = newTimelines(a)
	a.durables = newDurableWriter(a)
	a.server = control.NewServer(a, p.Journal)
	a.Runner.SetLease(func(vip string) bool { return a.binder.lives(elect.VIPID(vip)) })
	return a
}

// task is a long-lived part of the agent. It returns nil when ctx ends; any
// other return ends the agent.
type task struct {
	name string
	run  func(ctx context.Context) error
}

// Run runs the agent until ctx ends or an operator stops it. When ctx ends, Run hands
// nothing over; Stop does.
func (a *Agent) Run(ctx context.Context) error {
	var err error
	if a.watch, err = a.Parts.Watch(Hearing{a.onRouter, a.onRival, a.onGateway(), a.alone.evidence, a.alone.sign}); err != nil {
		return err
	}
	defer a.watch.Close()
	network, err := a.Parts.Network(a.deliver, a.keys.hear, a.alone.send)
	if err != nil {
		return err
	}
	a.network = network
	defer func() { _ = network.Close() }()
	a.actions.resume()
	a.locks.restore()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for _, t := range a.tasks() {
		group.Go(func() error {
			if err := t.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			return nil
		})
	}
	group.Go(func() error {
		defer cancel()
		defer close(a.ended)
		return a.loop(ctx)
	})
	return group.Wait()
}

func (a *Agent) tasks() []task {
	tasks := []task{
		{"addresses", a.binder.run},
		{"address watch", a.binder.watch},
		{"network watch", a.watch.Run},
		{"fence", a.binder.keepFence},
		{"record", a.recorder.run},
		{"state directory", a.durables.run},
		{"control socket", func(ctx context.Context) error { return a.server.Serve(ctx, a.Listener) }},
		{"status page", a.serveWeb},
		{"probes", a.probes.run},
		{"socket notices", a.sockets.run},
		{"VIP targets", a.vipTargets.run},
		{"checks", a.checks.run},
		{"systemd", a.notifySystemd},
		{"actions", a.actions.run},
		{"locks", a.locks.run},
		{"keys", a.keys.run},
		{"phones", a.phones.run},
		{"timelines", a.timelines.run},
		{"paused calls", a.resumeCalls},
	}
	return tasks
}

// deliver takes a fresh message from the network. It drops the message when the queue is
// full, as the network might.
func (a *Agent) deliver(r elect.Received) {
	switch m := r.Msg.(type) { // no decision depends on these
	case elect.Connections:
		a.phones.take(m)
		return
	case elect.Timeline:
		a.timelines.take(r.From, m)
		return
	}
	select {
	case a.packets <- r:
	default:
		a.stats.dropped.Add(1)
	}
}

// report takes an event from one of the agent's own workers. Workers may wait for the
// loop; the loop never waits for them.
func (a *Agent) report(ev elect.Event) {
	select {
	case a.events <- ev:
	case <-a.ended:
	}
}

// notifySystemd sends READY once the loop answers, and WATCHDOG only while it does.
func (a *Agent) notifySystemd(ctx context.Context) error {
	interval, err := platform.WatchdogInterval()
	if err != nil {
		return err
	}
	alive := func() bool {
		c, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return a.ask(c, func() {}) == nil
	}
	for !alive() { // while a machine boots, the loop may get no CPU for a while
		if ctx.Err() != nil {
			return nil
		}
	}
	if err := platform.NotifySystemd("READY=1"); err != nil {
		a.recorder.warn("tell systemd that the agent is ready", err)
	}
	if interval == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if alive() {
				_ = platform.NotifySystemd("WATCHDOG=1")
			}
		}
	}
}
