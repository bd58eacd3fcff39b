package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"sipalive/config"
	"sipalive/control"
	"sipalive/hooks"
	"sipalive/sipcheck"
)

// checks are what a node asks itself beside OPTIONS: the configured programs, and whether
// FreeSWITCH is ready. The answers are the node's own word. They need no agreement of
// other nodes, and make the node unfit as a refused port does.
type checks struct {
	a       *Agent
	change  chan struct{} // the items have been replaced
	telling sync.Mutex    // keeps reports in order: the last told is the newest
	mu      sync.Mutex    // guards items and the state of each
	items   []*check
}

// check is one question that is repeated.
type check struct {
	name     string
	interval time.Duration
	fall     int
	ask      func(ctx context.Context) (word, text string)

	checkVerdict // a reload keeps it
}

// checkVerdict is what a check has said.
type checkVerdict struct {
	word   string // one of the words below; "" before the first answer
	text   string
	heard  int // how many answers have come
	bad    int // how often unfit in a row
	down   bool
	agreed bool // down after fewer than fall times unfit, see agree
}

// The words of a check in status. Warn is for people. Unknown says nothing for or
// against, so the verdict before it stays.
const (
	checkOK      = "ok"
	checkWarn    = "warn"
	checkUnfit   = "unfit"
	checkPaused  = "paused"
	checkUnknown = "unknown"
)

// note takes one answer and reports whether the verdict changed.
func (c *check) note(word, text string) bool {
	c.word, c.text = word, text
	c.heard++
	was := c.down
	switch word {
	case checkUnfit:
		c.bad++
		c.down = c.down || c.bad >= c.fall
		c.agreed = c.agreed && c.bad < c.fall
	case checkUnknown:
		c.down, c.agreed = c.down && !c.agreed, false
	default:
		c.bad, c.down, c.agreed = 0, false, false
	}
	return c.down != was
}

// agree takes a no that agrees with another node's: this one no is enough to be unfit.
// It takes less to end that: also an answer that says nothing for or against.
func (c *check) agree(text string) {
	c.note(checkUnfit, text)
	c.agreed = c.agreed || !c.down
	c.down = true
}

func newChecks(a *Agent) *checks {
	x := &checks{a: a, change: make(chan struct{}, 1)}
	x.items = x.wanted(a.Config())
	return x
}

// wanted returns the checks of a configuration. A check of a name that is already there
// starts with that one's state.
func (x *checks) wanted(c *config.Config) (items []*check) {
	if !x.a.Self.Holder {
		return nil // a witness runs no PBX
	}
	for _, k := range c.Checks {
		items = append(items, execCheck(x.a.Self.Name, k))
	}
	if c.FreeSWITCH.ReadyCheck {
		items = append(items, x.readyCheck(c.SIP.OnNode()[0].Fall))
	}
	for _, is := range items {
		for _, was := range x.items {
			if was.name == is.name {
				is.checkVerdict = was.checkVerdict
			}
		}
	}
	return items
}

// reconfigure changes to the checks of a new configuration. A check of the same name keeps its
// verdict until it gives another.
func (x *checks) reconfigure(c *config.Config) {
	x.mu.Lock()
	x.items = x.wanted(c)
	x.mu.Unlock()
	poke(x.change)
}

func (x *checks) now() []*check {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.items
}

func execCheck(node string, c config.Check) *check {
	return &check{name: c.Name, interval: c.Interval, fall: c.Fall, ask: func(ctx context.Context) (word, text string) {
		code, text := hooks.RunCheck(ctx, node, c.Exec, c.Timeout)
		switch code {
		case hooks.CheckOK:
			return checkOK, text
		case hooks.CheckWarning:
			return checkWarn, text
		case hooks.CheckUnfit:
			return checkUnfit, text
		}
		return checkUnknown, text
	}}
}

// ReadyEvery is the time between two questions to FreeSWITCH, each with its own
// connection. It is also the time limit for the answer.
const ReadyEvery = time.Second

// NotReady is the text of an unready FreeSWITCH.
const NotReady = "fsctl ready_check says false, and it is not paused"

func (x *checks) readyCheck(fall int) *check {
	return &check{name: "freeswitch", interval: ReadyEvery, fall: fall, ask: func(ctx context.Context) (word, text string) {
		ctx, cancel := context.WithTimeout(ctx, ReadyEvery)
		defer cancel()
		r, err := sipcheck.AskReadiness(ctx, x.a.inForce.Load().eventSocket)
		switch {
		case err != nil:
			return checkUnknown, err.Error()
		case r == sipcheck.Paused:
			return checkPaused, "fsctl pause: new calls get 503"
		case r == sipcheck.Unready:
			return checkUnfit, NotReady
		}
		return checkOK, r.String()
	}}
}

// run repeats each check at its own pace. A check that hangs delays no other.
func (x *checks) run(ctx context.Context) error {
	for ctx.Err() == nil {
		c, cancel := context.WithCancel(ctx)
		var all sync.WaitGroup
		for _, item := range x.now() {
			all.Go(func() { x.repeat(c, item) })
		}
		x.tell()
		select {
		case <-ctx.Done():
		case <-x.change:
		}
		cancel()
		all.Wait()
	}
	return nil
}

func (x *checks) tell() {
	x.telling.Lock()
	defer x.telling.Unlock()
	x.a.probes.setUnready(len(x.unfit()) > 0)
}

func (x *checks) repeat(ctx context.Context, c *check) {
	tick := time.NewTicker(c.interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		word, text := c.ask(ctx)
		if ctx.Err() != nil {
			return // the check was cancelled: its answer says nothing about the PBX
		}
		x.mu.Lock()
		changed := c.note(word, text)
		x.mu.Unlock()
		if changed {
			x.tell()
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// fresh asks every check once more, now, all at the same time. It is called because
// another node's checks say no. A no here agrees with that, so one is enough, unless the
// check has given another answer meanwhile.
func (x *checks) fresh(ctx context.Context) error {
	items := x.now()
	said := make([]string, len(items))
	var all sync.WaitGroup
	for i, c := range items {
		all.Go(func() {
			x.mu.Lock()
			heard := c.heard
			x.mu.Unlock()
			if word, text := c.ask(ctx); word == checkUnfit {
				said[i] = strings.TrimSuffix(c.name+": "+text, ": ")
				x.mu.Lock()
				if c.heard == heard {
					c.agree(text)
				}
				x.mu.Unlock()
			}
		})
	}
	all.Wait()
	if no := slices.DeleteFunc(said, func(s string) bool { return s == "" }); len(no) > 0 {
		x.tell()
		return errors.New("its own checks say no, too: " + strings.Join(no, "; "))
	}
	return nil
}

// unfit returns the checks that speak against this node, one line each.
func (x *checks) unfit() (lines []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.items {
		if c.down {
			lines = append(lines, strings.TrimSuffix(c.name+": "+c.text, ": "))
		}
	}
	return lines
}

// status returns the last answer of each check.
func (x *checks) status() (all []control.CheckStatus) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.items {
		if c.word != "" {
			all = append(all, control.CheckStatus{Name: c.name, State: c.word, Text: c.text, Unfit: c.down})
		}
	}
	return all
}
