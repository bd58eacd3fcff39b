package agent

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sipalive/control"
	"sipalive/elect"
	"sipalive/keyring"
)

// keyGrace is how long packets sealed with a key may still arrive after the last node has
// stopped sealing with it. No packet is under way for longer than that where leases are
// renewed.
const keyGrace = time.Second

var errRotating = errors.New("another rotation is driven by this node (wait for its end)")

// RotateKey answers `sipalive key rotate`. It gives a new key to every node except those
// that are down and named in without, and calls progress with each node's step. If ctx
// ends first, or a node falls silent, all nodes still hear each other, and another
// rotation, started at any node, finishes this one.
func (a *Agent) RotateKey(ctx context.Context, without []string, progress func(control.KeyStep)) (string, error) {
	nodes, err := a.rotates(ctx, without)
	if err != nil {
		return "", fmt.Errorf("key rotate: %w", err)
	}
	tells, end, err := a.keys.begin()
	if err != nil {
		return "", fmt.Errorf("key rotate: %w", err)
	}
	defer end()
	fresh := make([]byte, keyring.KeySize)
	crand.Read(fresh) // never fails: crypto/rand ends the process instead
	r := keyring.NewRotation(time.Duration(a.Now()), nodes, fresh, keyGrace, randomWord)
	err = a.keys.drive(ctx, r, tells, progress)
	switch {
	case err != nil && r.Changed():
		err = fmt.Errorf("key rotate: %w (everybody still hears everybody; sipalive key rotate, on any node, finishes it)", err)
		a.recorder.keyStandsStill(err.Error())
		return "", err
	case err != nil:
		return "", fmt.Errorf("key rotate: %w", err)
	}
	text := fmt.Sprintf("key rotated: %s on %s", r.New(), strings.Join(nodes, ", "))
	if len(without) > 0 {
		text += fmt.Sprintf("; not on %s: give it the key file of one of these before its agent starts", strings.Join(without, ", "))
	}
	return text, nil
}

// rotates returns the nodes that take part: all configured nodes but those in without. A
// node that is left out must be down, because it would be cut off.
func (a *Agent) rotates(ctx context.Context, without []string) (nodes []string, err error) {
	var st elect.Status
	if err := a.ask(ctx, func() { st = a.Machine.Status() }); err != nil {
		return nil, err
	}
	for _, w := range without {
		if a.Config().Node(w) == nil {
			return nil, fmt.Errorf("without %s: no such node (configured: %s)", w, a.nodeNames())
		}
	}
	for _, n := range st.Nodes {
		name := string(n.Name)
		out := slices.Contains(without, name)
		switch {
		case out && n.Alive:
			return nil, fmt.Errorf("without %s: it is heard, and would be cut off (stop its agent first, or let it take part)", name)
		case !out && !n.Alive:
			return nil, fmt.Errorf("%s is not heard; nothing was changed (start its agent; or leave it out by --without %[1]s, and give it the key file by hand)", name)
		case !out && !n.SameConfig:
			return nil, fmt.Errorf("%s runs another configuration, which may have other nodes (the same file everywhere, and sipalive reload)", name)
		case !out:
			nodes = append(nodes, name)
		}
	}
	return nodes, nil
}

// begin hands the peers' answers to one rotation at a time.
func (x *keys) begin() (tells <-chan keyMessage, end func(), err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.rotation != nil {
		return nil, nil, errRotating
	}
	x.rotation = make(chan keyMessage, cap(x.in))
	return x.rotation, func() {
		x.mu.Lock()
		x.rotation = nil
		x.mu.Unlock()
	}, nil
}

// drive sends the questions that are due and passes on the answers, until the rotation
// ends.
func (x *keys) drive(ctx context.Context, r *keyring.Rotation, tells <-chan keyMessage, progress func(control.KeyStep)) error {
	for {
		now := time.Duration(x.a.Now())
		out, next := r.Due(now)
		for _, o := range out {
			x.send(elect.Node(o.Node), o.Ask)
		}
		for _, l := range r.Lines() {
			progress(control.KeyStep{Node: l.Node, Step: l.To.String(), Key: r.New().String()})
		}
		if r.Ended() {
			return r.Err()
		}
		select {
		case m := <-tells:
			r.Hear(time.Duration(x.a.Now()), string(m.from), m.m.(keyring.Tell))
		case <-time.After(next - now):
		case <-x.a.ended:
			return errEnded
		case <-ctx.Done():
			return errors.New("interrupted")
		}
	}
}

// send asks a node. This node's own question goes through hear, like a peer's.
func (x *keys) send(to elect.Node, ask keyring.Ask) {
	if to == elect.Node(x.a.Self.Name) {
		x.hear(to, ask)
	} else if x.a.network.SendKeys(to, ask, true) != nil {
		x.a.stats.sendErrors.Add(1)
	}
}
