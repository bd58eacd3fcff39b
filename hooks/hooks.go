// Package hooks runs the takeover actions of a VIP: programs, FreeSWITCH
// commands and memcached flushes.
//
// Nothing here is on the way from an event to a bound address. A Runner takes a
// chain of actions and returns at once; what the actions did comes back through
// callbacks. Which chains may still start is decided by epochs, see ledger.
package hooks

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Phase says at which point of a takeover an action runs (design §5.5).
type Phase string

const (
	// Prepare runs on the successor of a planned move, before it says ready.
	Prepare Phase = "prepare"
	// Acquire runs on the new holder, once the VIP is bound and announced.
	Acquire Phase = "acquire"
	// Release runs on the old holder, once the VIP is unbound.
	Release Phase = "release"
	// Retire runs on the old holder, once the successor's acquire chain has
	// ended: for what would disturb a move, such as stopping a FreeSWITCH
	// profile, which hangs up its calls.
	Retire Phase = "retire"
)

func (p Phase) valid() bool { return p.takes() || p == Release || p == Retire }

// takes reports whether p belongs to the epoch that is being taken, not to the
// one that was let go.
func (p Phase) takes() bool { return p == Prepare || p == Acquire }

// DefaultTimeout bounds an action whose Timeout is zero.
const DefaultTimeout = 5 * time.Second

// Action is one step of a chain. Exactly one of Exec, FreeSWITCH and Memcached
// is set.
type Action struct {
	On Phase
	// Exec is a program and its arguments; the program by its absolute path.
	Exec []string
	// FreeSWITCH is a list of API commands, sent in order on one connection. The
	// list ends at the first that fails, since later ones build on earlier ones
	// (stop, then start); commands that do not are better off as actions of their own.
	FreeSWITCH []string
	// Memcached is a list of servers (host:port); each gets flush_all on its own.
	Memcached []string
	// Timeout bounds the whole action, a list of commands included. Zero means
	// DefaultTimeout.
	Timeout time.Duration
}

// Check refuses an action that could never do what it says, in one line.
func (a Action) Check() error {
	if !a.On.valid() {
		return fmt.Errorf("on = %q: not a phase (use prepare, acquire, release or retire)", string(a.On))
	}
	if a.Timeout < 0 {
		return fmt.Errorf("timeout = %q: must not be negative", a.Timeout)
	}
	verbs := 0
	for _, list := range [][]string{a.Exec, a.FreeSWITCH, a.Memcached} {
		if len(list) > 0 {
			verbs++
		}
	}
	if verbs != 1 {
		return fmt.Errorf("an action has exactly one of exec, freeswitch and memcached, this one has %d", verbs)
	}
	return a.checkVerb()
}

func (a Action) checkVerb() error {
	if len(a.Exec) > 0 && !filepath.IsAbs(a.Exec[0]) {
		return fmt.Errorf("exec %s: not an absolute path (the agent searches no PATH)", oneLine(a.Exec[0]))
	}
	for _, arg := range a.Exec {
		if strings.ContainsRune(arg, 0) {
			return fmt.Errorf("exec %s: an argument holds a NUL byte", oneLine(a.Exec[0]))
		}
	}
	for _, command := range a.FreeSWITCH {
		if err := checkFreeSWITCH(command); err != nil {
			return err
		}
	}
	for _, server := range a.Memcached {
		if err := checkServer(server); err != nil {
			return fmt.Errorf("memcached %s: %w (use host:port, e.g. 127.0.0.1:11211)", oneLine(server), err)
		}
	}
	return nil
}

func checkServer(server string) error {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return fmt.Errorf("not an address with a port")
	}
	if host == "" || strings.ContainsAny(host, "/ \t\r\n\x00") {
		return fmt.Errorf("not a host")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("not a port from 1 to 65535")
	}
	return nil
}

// label names the action in status and events.
func (a Action) label() string {
	switch {
	case len(a.Exec) > 0:
		return "exec " + oneLine(a.Exec[0])
	case len(a.FreeSWITCH) > 0:
		return "freeswitch " + oneLine(strings.Join(a.FreeSWITCH, "; "))
	case len(a.Memcached) > 0:
		return "memcached " + oneLine(strings.Join(a.Memcached, ", "))
	}
	return "action without a verb"
}

func (a Action) timeout() time.Duration {
	if a.Timeout <= 0 {
		return DefaultTimeout
	}
	return a.Timeout
}

// Event is what a program is told about the takeover, in its environment.
type Event struct {
	VIP, Address, Node, Previous string
	Epoch                        uint64
	Reason                       string
}

// searchPath is all of PATH that a program gets: Debian's default for services.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environ is the whole environment of a program. Nothing of the agent's own is
// passed on: NOTIFY_SOCKET and WATCHDOG_PID would let a script speak for the
// agent, GODEBUG would change how a Go program behaves.
func (e Event) environ(phase Phase) []string {
	return []string{
		"PATH=" + searchPath,
		"SIPALIVE_EVENT=" + string(phase),
		"SIPALIVE_VIP=" + oneLine(e.VIP),
		"SIPALIVE_ADDRESS=" + oneLine(e.Address),
		"SIPALIVE_NODE=" + oneLine(e.Node),
		"SIPALIVE_PREVIOUS=" + oneLine(e.Previous),
		"SIPALIVE_EPOCH=" + strconv.FormatUint(e.Epoch, 10),
		"SIPALIVE_REASON=" + oneLine(e.Reason),
	}
}

// Outcome is what became of one action.
type Outcome struct {
	// Action is a short label: `exec /etc/x`, `freeswitch sofia profile vip1
	// recover`, `memcached 127.0.0.1:11211`.
	Action string
	// Epoch is the fencing token the action carried; after Raised it may be above
	// the one its chain was started with.
	Epoch uint64
	// Started is the reading of Options.Now when the action started, in ns.
	Started int64
	// Took is how long it ran.
	Took time.Duration
	OK   bool
	// Skipped means that the action never started, Err says why.
	Skipped bool
	// Err is one line, empty if OK.
	Err string
	// Note is one line about an action that went well but should be looked at.
	Note string
	// Output is what the action printed or was answered, at most about 4 KiB: the
	// beginning and the end, with what was cut between them said.
	Output string
}
