package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

func newDemoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Run a whole cluster on this machine and let it fail over before your eyes",
		Args:  arguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("demo: network namespaces need root (run it with sudo)")
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return runDemo(ctx, cmd.OutOrStdout())
		},
	}
}

// newDemoPBXCommand returns the SIP server of the demo's nodes.
func newDemoPBXCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "demo-pbx NAME [ADDRESS:PORT]",
		Hidden: true,
		Args:   cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			addresses := []string{"0.0.0.0:5060", "[::]:5060"}
			if len(args) > 1 {
				addresses = args[1:]
			}
			servers, ctx := errgroup.WithContext(cmd.Context())
			for _, at := range addresses {
				servers.Go(func() error {
					err := lab.ServeOptions(ctx, at, args[0])
					if errors.Is(err, syscall.EAFNOSUPPORT) {
						return nil // a machine booted without IPv6
					}
					return err
				})
			}
			return servers.Wait()
		},
	}
}

// demo is one run: a cluster, and observers who judge it from outside.
type demo struct {
	*cluster.Cluster
	out    io.Writer
	phones []*lab.SIPObserver // one per VIP
	router *lab.ARPObserver
}

func runDemo(ctx context.Context, out io.Writer) (err error) {
	fmt.Fprintln(out, "Three PBX nodes, two floating IPs, a router and a phone behind it, in network")
	fmt.Fprintln(out, "namespaces of this machine. Nothing outside them is touched.")
	fmt.Fprintln(out)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	start := time.Now()
	c, err := cluster.Start(cluster.Options{Binary: self})
	if err != nil {
		return err
	}
	// After a signal everything is cleaned up as after the regular end.
	defer func() { err = errors.Join(err, c.Close()) }()
	d := &demo{Cluster: c, out: out}
	if err := d.begin(ctx, start); err != nil {
		return interrupted(ctx, err)
	}
	for i, step := range []func(context.Context) error{d.move, d.killPBX, d.silence, d.comeBack, d.failback} {
		fmt.Fprintf(out, "\n%d. ", i+1)
		if err := step(ctx); err != nil {
			return interrupted(ctx, err)
		}
	}
	return d.finish()
}

// interrupted returns no error after a Ctrl-C, because that is not a failure of the demo.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (d *demo) begin(ctx context.Context, start time.Time) (err error) {
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := d.WaitHeld(wait, 0, "pbx1", "pbx2", "pbx3"); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "Both VIPs held %.1f s after the first process was started:\n\n", time.Since(start).Seconds())
	st, err := d.Client(0).Status(ctx)
	if err != nil {
		return err
	}
	if err := control.WriteStatus(d.out, st, lookOn(d.out)); err != nil {
		return err
	}
	for i := range d.VIPs {
		o, err := d.Phone().ObserveSIP(netip.AddrPortFrom(d.VIPs[i], 5060), 0)
		if err != nil {
			return err
		}
		d.phones = append(d.phones, o)
	}
	if d.router, err = d.ObserveARP(0, d.VIPs...); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "\nThe phone now asks both VIPs with one OPTIONS per millisecond, and the router's")
	fmt.Fprintln(d.out, "segment is asked by ARP every 10 ms who has them.")
	return d.watch(ctx, 200*time.Millisecond)
}

// move shows a planned takeover.
func (d *demo) move(ctx context.Context) error {
	from, to := d.holder(ctx, 0), d.spare(ctx)
	fmt.Fprintf(d.out, "Planned move: sipalive move vip1 %s\n", to)
	at := lab.Now()
	said, err := d.Client(d.Index(from)).Do(ctx, control.Command{Kind: control.Move, VIP: "vip1", Node: to})
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "   %s\n", said)
	return d.report(ctx, 0, to, at)
}

// killPBX ends the PBX process that serves vip2.
func (d *demo) killPBX(ctx context.Context) error {
	from := d.holder(ctx, 1)
	fmt.Fprintf(d.out, "PBX process killed: kill -9 of the SIP server on %s, which holds vip2\n", from)
	at := lab.Now()
	d.PBX(d.Index(from)).Kill()
	to, err := d.movedFrom(ctx, d.Index(from), 1, from)
	if err != nil {
		return err
	}
	if err := d.report(ctx, 1, to, at); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "   (the SIP server on %s is started again)\n", from)
	return d.StartPBX(d.Index(from))
}

// silence cuts off a host, as a dead switch port or a hung hypervisor would.
func (d *demo) silence(ctx context.Context) error {
	from := d.holder(ctx, 0)
	fmt.Fprintf(d.out, "Host gone silent: no frame passes %s, which holds vip1, either way\n", from)
	at := lab.Now()
	if err := d.Cut(d.Node(d.Index(from))); err != nil {
		return err
	}
	other := (d.Index(from) + 1) % 3
	to, err := d.movedFrom(ctx, other, 0, from)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "   vip1: %s -> %s (default lease 1 s)\n", from, to)
	return d.report(ctx, 0, to, at)
}

// comeBack restores the silent host. Nothing moves, because failback is manual.
func (d *demo) comeBack(ctx context.Context) error {
	var lost *lab.Host
	st, err := d.anyStatus(ctx)
	if err != nil {
		return err
	}
	for _, n := range st.Nodes {
		if !n.Alive {
			lost = d.Node(d.Index(n.Name))
		}
	}
	if lost == nil {
		return errors.New("demo: no node is missing")
	}
	fmt.Fprintf(d.out, "The silent host comes back: %s\n", lost.Name)
	at := lab.Now()
	if err := d.Restore(lost); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := d.WaitHeld(wait, d.Index(lost.Name), lost.Name); err != nil {
		return err
	}
	if err := d.watch(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "   nothing moves: it let go when its lease ended, and failback is manual")
	d.saw(0, at)
	d.saw(1, at)
	return nil
}

// failback brings every VIP home.
func (d *demo) failback(ctx context.Context) error {
	fmt.Fprintln(d.out, "Home again: sipalive failback")
	at := lab.Now()
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := d.WaitHeld(wait, 0, "pbx1", "pbx2"); err != nil {
		return err
	}
	said, err := d.Client(0).Do(wait, control.Command{Kind: control.Failback})
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "   %s\n", said)
	if err := d.watch(ctx, 200*time.Millisecond); err != nil {
		return err
	}
	d.saw(0, at)
	d.saw(1, at)
	return nil
}

func (d *demo) finish() error {
	events, err := d.Client(0).Events(context.Background(), 100)
	if err != nil {
		return err
	}
	for i := len(events) - 1; i >= 0; i-- {
		if events[i].Kind == control.Takeover && !events[i].Told {
			fmt.Fprintln(d.out, "\nThe last takeover as pbx1's agent tells it (sipalive events):")
			if err := control.WriteEvent(d.out, events[i], time.Local); err != nil {
				return err
			}
			break
		}
	}
	d.router.Stop()
	for _, p := range d.phones {
		p.Stop()
	}
	if v := d.router.Violations(); len(v) > 0 {
		return fmt.Errorf("demo: two owners answered %d of %d ARP questions, the first: %s", len(v), d.router.Asked(), v[0])
	}
	fmt.Fprintf(d.out, "\n%d rounds of ARP questions, never two owners for one address.\n", d.router.Asked())
	return nil
}

// report waits until the phone hears the new holder, and prints what the phone saw.
func (d *demo) report(ctx context.Context, vip int, to string, at time.Duration) error {
	if err := d.heardFrom(ctx, vip, to, at); err != nil {
		return err
	}
	d.saw(vip, at)
	return nil
}

func (d *demo) saw(vip int, at time.Duration) {
	r := d.phones[vip].Report(at-50*time.Millisecond, lab.Now()-20*time.Millisecond)
	fmt.Fprintf(d.out, "   phone, %s: %d of %d answers lost, longest silence %.0f ms\n", cluster.VIPName(vip), r.Lost, r.Sent,
		float64(r.Silence)/float64(time.Millisecond))
}

// heardFrom waits until the phone's answers come from a node, and then a little longer,
// so that what follows is seen too.
func (d *demo) heardFrom(ctx context.Context, vip int, to string, at time.Duration) error {
	wait, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := lab.WaitFor(wait, fmt.Sprintf("the phone hears %s at %s", to, cluster.VIPName(vip)), func() error {
		last, ok := d.phones[vip].Last()
		if !ok || last.Server != to || last.Sent < at {
			return fmt.Errorf("last answer from %q", last.Server)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.watch(ctx, 200*time.Millisecond)
}

// watch lets the observers go on for a while. The duration is part of what the demo
// shows; it waits for nothing.
func (d *demo) watch(ctx context.Context, long time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(long):
		return nil
	}
}

func (d *demo) anyStatus(ctx context.Context) (st control.Status, err error) {
	for i := range d.Nodes() {
		if st, err = d.Client(i).Status(ctx); err == nil && st.Quorum {
			return st, nil
		}
	}
	return st, err
}

func (d *demo) holder(ctx context.Context, vip int) string {
	st, err := d.anyStatus(ctx)
	if err != nil || vip >= len(st.VIPs) {
		return ""
	}
	return st.VIPs[vip].Holder
}

func (d *demo) spare(ctx context.Context) string {
	st, _ := d.anyStatus(ctx)
	for _, n := range st.Nodes {
		if n.Fit && len(n.Holds) == 0 {
			return n.Name
		}
	}
	return ""
}

// movedFrom waits until a VIP has left a node, as seen by another node.
func (d *demo) movedFrom(ctx context.Context, seenBy, vip int, from string) (to string, err error) {
	wait, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err = lab.WaitFor(wait, fmt.Sprintf("%s leaves %s", cluster.VIPName(vip), from), func() (err error) {
		if to, err = d.Holder(wait, seenBy, vip); err != nil {
			return err
		}
		if to == "" || to == from {
			return fmt.Errorf("holder is %q", to)
		}
		return nil
	})
	return to, err
}
