// Package control is how people and scripts talk to a running agent. It has the HTTP and
// JSON server on a unix socket in the runtime directory, the client that the commands
// use, the journal of events, and the tables for people. It decides nothing and logs
// nothing.
package control

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sipalive/elect"
)

// Agent is what the agent's loop offers to the control socket. Every method may be called
// from any goroutine and returns soon after ctx ends.
type Agent interface {
	// Status returns what this node knows now.
	Status(ctx context.Context) (Status, error)
	// Plan returns who would hold what if the nodes in without were gone. An unconfigured
	// node is an error.
	Plan(ctx context.Context, without []string) (Plan, error)
	// Do carries out an operator's command and blocks until it is done or refused. The
	// text is one line for people, such as "vip1: pbx1 -> pbx3 in 4 ms, epoch 8"; it may
	// be empty. An error is one line: what failed, on what, why, what to do. If ctx ends
	// first, the command may still be carried out.
	Do(ctx context.Context, cmd Command) (string, error)
	// Flush makes every node run its flush actions and returns each result, in configured
	// order. A node that is not heard has one entry without an action.
	Flush(ctx context.Context) ([]FlushResult, error)
	// DrainQuietly drains this node once its calls have ended. Until then it calls
	// progress. If ctx ends before the move, nothing changes.
	DrainQuietly(ctx context.Context, w WaitCalls, progress func(CallsLeft)) (string, error)
	// RotateKey brings a new key to every node except those in without, which are down.
	// It calls progress for each step of each node. If ctx ends before the rotation is
	// done, another rotation finishes it.
	RotateKey(ctx context.Context, without []string, progress func(KeyStep)) (string, error)
	Locker
}

// FlushResult is one flush action on one node.
type FlushResult struct {
	Node   string `json:"node"`
	Action string `json:"action,omitempty"` // empty: the node has no flush action, or is not heard
	OK     bool   `json:"ok"`
	Took   Millis `json:"took_ms,omitempty"`
	Text   string `json:"text,omitempty"` // why it failed, or what needs a look
}

// Kind is what an operator may ask of the agent.
type Kind string

// The commands that change something.
const (
	Move     Kind = "move"     // VIP to Node
	Failback Kind = "failback" // VIP, or all if empty, to the preferred node
	Drain    Kind = "drain"    // Node; empty: this node
	Undrain  Kind = "undrain"  // Node; empty: this node
	Adopt    Kind = "adopt"    // use the file's voter list now, when no other is in use
	Freeze   Kind = "freeze"   // Node (empty: this node): ignore SIP verdicts for the time For
	Thaw     Kind = "thaw"     // Node; empty: this node
	Reload   Kind = "reload"   // read the configuration file again and use it
	Stop     Kind = "stop"     // hand everything over and end this agent
)

// Command is an operator's request. VIP and Node are configured names.
type Command struct {
	Kind Kind   `json:"kind"`
	VIP  string `json:"vip,omitempty"`
	Node string `json:"node,omitempty"`
	For  Millis `json:"for_ms,omitempty"` // Freeze: from a second to elect.MaxFreeze
}

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

// maxName is longer than any configured name. The configuration limits real names; this
// limit only keeps hostile input small.
const maxName = 128

// commands lists all commands and what each takes.
var commands = []struct {
	kind            Kind
	vip, node, long bool
}{
	{kind: Move, vip: true, node: true}, {kind: Failback, vip: true}, {kind: Drain, node: true}, {kind: Undrain, node: true},
	{kind: Freeze, node: true, long: true}, {kind: Thaw, node: true}, {kind: Adopt}, {kind: Reload}, {kind: Stop},
}

// check refuses a command whose shape is wrong. The agent checks whether its names exist.
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
	if d := time.Duration(c.For); long && (d < time.Second || d > elect.MaxFreeze) || !long && d != 0 {
		return fmt.Errorf("command %s: for %s is not possible (freeze takes 1s to %s)", c.Kind, d, elect.MaxFreeze)
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

// oneLine makes untrusted text safe for a terminal and for one line. A peer's error or an
// action's output may hold anything.
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
