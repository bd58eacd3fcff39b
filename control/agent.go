// Package control is how people and scripts talk to a running agent: HTTP and
// JSON over a unix socket in the runtime directory, the client the commands
// use, the journal of what happened, and the tables people read. It decides
// nothing and logs nothing.
package control

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Agent is what the agent's loop offers to the socket. Every method is safe
// from any goroutine and returns soon after ctx ends.
type Agent interface {
	// Status is what this node knows now.
	Status(ctx context.Context) (Status, error)
	// Plan is who would hold what if the nodes of without were gone. A node
	// that is not configured is an error.
	Plan(ctx context.Context, without []string) (Plan, error)
	// Do carries out an operator's command and blocks until it is done or
	// refused. The text is the outcome for people, one line such as
	// "vip1: pbx1 -> pbx3 in 4 ms, epoch 8"; it may be empty. An error is one
	// line: what, on what, why, what to do. When ctx ends first the command
	// may still be carried out.
	Do(ctx context.Context, cmd Command) (string, error)
	// Flush has every node run its flush actions and returns what became of each,
	// in configured order. A node that is not heard has one entry without an action.
	Flush(ctx context.Context) ([]FlushResult, error)
	// DrainQuietly drains this node once its calls have ended, and calls progress
	// meanwhile. When ctx ends before the move everything is as it was.
	DrainQuietly(ctx context.Context, w WaitCalls, progress func(CallsLeft)) (string, error)
	// RotateKey brings a new key to every node but those of without, which are down,
	// and calls progress with each step of each node. When ctx ends before it is
	// done, another rotation finishes it.
	RotateKey(ctx context.Context, without []string, progress func(KeyStep)) (string, error)
	Locker
}

// FlushResult is one flush action on one node.
type FlushResult struct {
	Node   string `json:"node"`
	Action string `json:"action,omitempty"` // empty: the node has none, or is not heard
	OK     bool   `json:"ok"`
	Took   Millis `json:"took_ms,omitempty"`
	Text   string `json:"text,omitempty"` // why it failed, or what is to be looked at
}

// Kind is what an operator may ask of the agent.
type Kind string

// The commands that change something.
const (
	Move     Kind = "move"     // VIP to Node
	Failback Kind = "failback" // VIP, or every one when empty, to its preferred node
	Drain    Kind = "drain"    // Node, this one when empty
	Undrain  Kind = "undrain"  // Node, this one when empty
	Adopt    Kind = "adopt"    // take the file's voter list now: no other is in use
	Freeze   Kind = "freeze"   // Node, this one when empty: no SIP verdicts, For so long
	Thaw     Kind = "thaw"     // Node, this one when empty
	Reload   Kind = "reload"   // read the file anew and take it
	Stop     Kind = "stop"     // hand everything over and end this agent
)

// Command is an operator's request. VIP and Node are configured names.
type Command struct {
	Kind Kind   `json:"kind"`
	VIP  string `json:"vip,omitempty"`
	Node string `json:"node,omitempty"`
	For  Millis `json:"for_ms,omitempty"` // Freeze: from a second to MaxFreeze
}

// MaxFreeze is the longest freeze: one that is forgotten ends.
const MaxFreeze = 24 * time.Hour

func (c Command) String() string {
	words := []string{string(c.Kind)}
	if c.VIP != "" {
		words = append(words, c.VIP)
	}
	if c.Node != "" {
		words = append(words, c.Node)
	}
	if c.For != 0 {
		words = append(words, "for", time.Duration(c.For).String())
	}
	return strings.Join(words, " ")
}

// maxName is longer than any configured name may be: a VIP's or node's name is
// bounded by the configuration, this only keeps hostile input small.
const maxName = 128

// commands are all that there are, and what each takes.
var commands = []struct {
	kind            Kind
	vip, node, long bool
}{
	{kind: Move, vip: true, node: true}, {kind: Failback, vip: true}, {kind: Drain, node: true}, {kind: Undrain, node: true},
	{kind: Freeze, node: true, long: true}, {kind: Thaw, node: true}, {kind: Adopt}, {kind: Reload}, {kind: Stop},
}

// check refuses a command whose shape is wrong; whether its names exist is the
// agent's to say.
func (c Command) check() error {
	var known []string
	for _, may := range commands {
		if may.kind == c.Kind {
			return c.checkFor(may.vip, may.node, may.long)
		}
		known = append(known, string(may.kind))
	}
	return fmt.Errorf("command %s: unknown (%s)", oneLine(string(c.Kind)), strings.Join(known, ", "))
}

func (c Command) checkFor(vip, node, long bool) error {
	if c.Kind == Move && (c.VIP == "" || c.Node == "") {
		return fmt.Errorf("command move: needs a VIP and a node")
	}
	if c.VIP != "" && !vip || c.Node != "" && !node {
		return fmt.Errorf("command %s: takes no such argument", c.Kind)
	}
	if d := time.Duration(c.For); long && (d < time.Second || d > MaxFreeze) || !long && d != 0 {
		return fmt.Errorf("command %s: for %s is not possible (freeze takes 1s to %s)", c.Kind, d, MaxFreeze)
	}
	for _, name := range []string{c.VIP, c.Node} {
		if err := checkName(name); err != nil {
			return fmt.Errorf("command %s: %w", c.Kind, err)
		}
	}
	return nil
}

func checkName(name string) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("name of %d bytes: longer than any configured name may be (%d)", len(name), maxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unprintable):
		return fmt.Errorf("name %s: not a configured name", oneLine(name))
	}
	return nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// oneLine makes foreign text safe for a terminal and for one line: a peer's
// error or an action's output may hold anything.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case r == utf8.RuneError || unprintable(r):
			return '?'
		}
		return r
	}, s)
}
