// Package hooks runs the takeover actions of a VIP: programs, FreeSWITCH
// commands, memcached flushes, HTTP requests and mail.
//
// Nothing here is on the way from an event to a bound address. A Runner takes a
// chain of actions and returns at once; what the actions did comes back through
// callbacks. Which chains may still start is decided by epochs, see ledger; what
// an agent that died has left undone is known from its Journal.
package hooks

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
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
	// Failed runs on the node whose takeover failed: the address could not be
	// bound, an action failed that gives the VIP back, or SIP did not answer. The
	// VIP may be gone by then, or be held for want of a better node.
	Failed Phase = "failed"
	// Unreachable runs on the holder of a VIP that the router has not been shown
	// to follow.
	Unreachable Phase = "unreachable"
	// Flush belongs to no VIP and no epoch: it runs on every node when an operator
	// asks.
	Flush Phase = "flush"
	// Notice belongs to no VIP's chain: it tells people what has happened.
	Notice Phase = "notice"
)

// phases lists every phase in the order of a takeover.
var phases = []Phase{Prepare, Acquire, Release, Retire, Failed, Unreachable, Flush, Notice}

func (p Phase) valid() bool { return slices.Contains(phases, p) }

// takes reports whether p belongs to the epoch that is being taken or is held,
// not to the one that was let go.
func (p Phase) takes() bool { return p == Prepare || p == Acquire || p == Unreachable }

// held reports whether p is for a VIP that this node holds, and so for as long as
// its lease lives.
func (p Phase) held() bool { return p == Acquire || p == Unreachable }

// gives reports whether the failure of an action of p may give the VIP back.
func (p Phase) gives() bool { return p == Prepare || p == Acquire }

// Cause is why a takeover happens, as far as actions tell causes apart.
type Cause string

// The causes of a takeover.
const (
	Move  Cause = "move"  // planned: asked for, a drain, a failback, an agent that ends
	Crash Cause = "crash" // the holder fell silent
	SIP   Cause = "sip"   // the holder's PBX did not answer
	Boot  Cause = "boot"  // nobody held it since the cluster started
)

var causes = []Cause{Move, Crash, SIP, Boot}

// DefaultTimeout bounds an action whose Timeout is zero.
const DefaultTimeout = 5 * time.Second

// Action is one step of a chain. Exactly one of Exec, FreeSWITCH, Memcached, HTTP
// and Mail is set.
type Action struct {
	On Phase
	// Exec is a program and its arguments; the program by its absolute path.
	Exec []string
	// User is whom the program runs as; "" is the agent's own user, without its
	// capabilities. Needs Exec, and, unless it is the agent's own, the hooks service.
	User string
	// FreeSWITCH is a list of API commands and ready-made verbs (profile-start NAME,
	// profile-recover NAME, standby-on, standby-off, pause, resume, flush), done in
	// order on one connection. The list ends at the first that fails, since later ones build on earlier ones
	// (stop, then start); commands that do not are better off as actions of their own.
	FreeSWITCH []string
	// Memcached is a list of servers (host:port); each gets flush_all on its own.
	Memcached []string
	// HTTP is a URL that gets the event as JSON, signed with the secret in
	// SecretFile if that is given: see SignatureHeader.
	HTTP, SecretFile string
	// Mail is a list of recipients.
	Mail []string
	// Timeout bounds the whole action, a list of commands included, each time it
	// is tried. Zero means DefaultTimeout.
	Timeout time.Duration
	// Retries is how often the action is tried again after a failure, with
	// growing pauses; see Backoff.
	Retries int
	// GiveBack asks for another holder once the action has failed for good:
	// on_failure = "release". The rest of the chain is then left out. Only for
	// prepare, where it means "not ready", and acquire.
	GiveBack bool
	// When lists the causes for which the action runs; empty means all.
	When []Cause
}

// Check refuses an action that could never do what it says, in one line.
func (a Action) Check() error {
	if !a.On.valid() {
		return fmt.Errorf("on = %q: not a phase (use prepare, acquire, release, retire, failed, unreachable or flush)", string(a.On))
	}
	if a.Timeout < 0 {
		return fmt.Errorf("timeout = %q: must not be negative", a.Timeout)
	}
	if a.Retries < 0 {
		return fmt.Errorf("retries = %d: must not be negative", a.Retries)
	}
	if a.GiveBack && !a.On.gives() {
		return fmt.Errorf("on_failure = \"release\": nothing to give back on %s (only on prepare and acquire)", a.On)
	}
	for _, c := range a.When {
		if !slices.Contains(causes, c) {
			return fmt.Errorf("when = %q: not a cause (use move, crash, sip or boot)", string(c))
		}
	}
	verbs := 0
	for _, given := range []bool{len(a.Exec) > 0, len(a.FreeSWITCH) > 0, len(a.Memcached) > 0, a.HTTP != "", len(a.Mail) > 0} {
		if given {
			verbs++
		}
	}
	if verbs != 1 {
		return fmt.Errorf("an action has exactly one of exec, freeswitch, memcached, http and mail, this one has %d", verbs)
	}
	if a.SecretFile != "" && a.HTTP == "" {
		return errors.New("secret_file: only an http action has one")
	}
	if a.User != "" && len(a.Exec) == 0 {
		return errors.New("user: only an exec action has one")
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
	if a.HTTP != "" {
		if err := checkHTTP(a.HTTP); err != nil {
			return err
		}
	}
	return checkMail(a.Mail)
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
	case a.HTTP != "":
		return "http " + shortURL(a.HTTP)
	case len(a.Mail) > 0:
		return "mail " + oneLine(strings.Join(a.Mail, ", "))
	}
	return "action without a verb"
}

func (a Action) timeout() time.Duration {
	if a.Timeout <= 0 {
		return DefaultTimeout
	}
	return a.Timeout
}

// appliesTo reports whether the action is one of the chain of that phase for
// that cause. An invalid action is in every chain: it is reported, not lost.
func (a Action) appliesTo(p Phase, c Cause) bool {
	if !a.On.valid() {
		return true
	}
	return a.On == p && (len(a.When) == 0 || slices.Contains(a.When, c))
}

// The pauses between the tries of one action.
const (
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// Backoff is the pause before the n-th repetition, counted from 1: 0.2 s, then
// twice as long each time, at most 5 s.
func Backoff(n int) time.Duration {
	d := firstBackoff
	for ; n > 1 && d < maxBackoff; n-- {
		d *= 2
	}
	return min(d, maxBackoff)
}

// Longest is how long the chain of a phase takes at most by its timeouts, its
// repetitions included.
func Longest(actions []Action, p Phase) (sum time.Duration) {
	for _, a := range actions {
		if a.On != p {
			continue
		}
		sum += a.timeout()
		for n := range a.Retries {
			sum += Backoff(n+1) + a.timeout()
		}
	}
	return sum
}

// Event is what an action is told about the takeover, a program in its environment. Cause
// is for the actions' When; Reason says it in the agent's finer words.
type Event struct {
	VIP, Address, Node, Previous string
	Epoch                        uint64
	Cause                        Cause
	Reason                       string
	// Name stands in the phase's place where it is told; "" for the phase itself.
	Name string
	// Subject and Text are for people: of a mail, Text of a webhook too.
	Subject, Text string
}

// name is what the event is called outside.
func (e Event) name(phase Phase) string {
	if e.Name != "" {
		return e.Name
	}
	return string(phase)
}

// searchPath is all of PATH that a program gets: Debian's default for services.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environ is the whole environment of a program. Nothing of the agent's own is
// passed on: NOTIFY_SOCKET and WATCHDOG_PID would let a script speak for the
// agent, GODEBUG would change how a Go program behaves.
func (e Event) environ(phase Phase) []string {
	return []string{
		"PATH=" + searchPath,
		"SIPALIVE_EVENT=" + e.name(phase),
		"SIPALIVE_VIP=" + oneLine(e.VIP),
		"SIPALIVE_ADDRESS=" + oneLine(e.Address),
		"SIPALIVE_NODE=" + oneLine(e.Node),
		"SIPALIVE_PREVIOUS=" + oneLine(e.Previous),
		"SIPALIVE_EPOCH=" + strconv.FormatUint(e.Epoch, 10),
		"SIPALIVE_REASON=" + oneLine(e.Reason),
		"SIPALIVE_TEXT=" + oneLine(e.Subject),
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
	// Took is how long it ran, repetitions and the pauses between them included.
	Took time.Duration
	// Attempts is how often it was tried.
	Attempts int
	OK       bool
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

// End is how a chain ended.
type End struct {
	// OK means that all of it ran and succeeded.
	OK bool
	// GiveBack says in one line which action failed that asks for another holder;
	// "" for none.
	GiveBack string
}
