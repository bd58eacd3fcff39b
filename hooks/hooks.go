// Package hooks runs the takeover actions of a VIP: programs, FreeSWITCH commands,
// memcached flushes, HTTP requests and mails.
//
// Nothing here is in the path from an event to a bound address. A Runner takes a chain of
// actions and returns at once; callbacks report what the actions did. Epochs decide which
// chains may still start, see ledger. The Journal tells what a dead agent has left
// undone.
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
	// Prepare runs on the successor of a planned move, before it reports ready.
	Prepare Phase = "prepare"
	// Acquire runs on the new holder, once the VIP is bound and announced.
	Acquire Phase = "acquire"
	// Release runs on the old holder, once the VIP is unbound.
	Release Phase = "release"
	// Retire runs on the old holder once the successor's acquire chain has ended. It is
	// for what would disturb a move, such as stopping a FreeSWITCH profile, which hangs
	// up its calls.
	Retire Phase = "retire"
	// Failed runs on the node whose takeover failed: the address could not be bound, an
	// action that gives the VIP back failed, or SIP did not answer. The VIP may be gone
	// by then, or still be held for lack of a better node.
	Failed Phase = "failed"
	// Unreachable runs on the holder of a VIP that the router was not seen to follow.
	Unreachable Phase = "unreachable"
	// Flush belongs to no VIP and no epoch. It runs on every node when an operator asks.
	Flush Phase = "flush"
	// Notice belongs to no VIP's chain. It tells people what has happened.
	Notice Phase = "notice"
)

// phases lists every phase in the order of a takeover.
var phases = []Phase{Prepare, Acquire, Release, Retire, Failed, Unreachable, Flush, Notice}

func (p Phase) valid() bool { return slices.Contains(phases, p) }

// takes reports whether p belongs to an epoch that is being taken or held, not to one
// that was let go.
func (p Phase) takes() bool { return p == Prepare || p == Acquire || p == Unreachable }

// held reports whether p is for a VIP that this node holds, so that it needs a live
// lease.
func (p Phase) held() bool { return p == Acquire || p == Unreachable }

// gives reports whether the failure of an action of p may give the VIP back.
func (p Phase) gives() bool { return p == Prepare || p == Acquire }

// Cause is why a takeover happens, as far as actions distinguish causes.
type Cause string

// The causes of a takeover.
const (
	Move  Cause = "move"  // planned: an operator's move, a drain, a failback, an agent that ends
	Crash Cause = "crash" // the holder fell silent
	SIP   Cause = "sip"   // the holder's PBX did not answer
	Boot  Cause = "boot"  // nobody has held it since the cluster started
)

var causes = []Cause{Move, Crash, SIP, Boot}

// DefaultTimeout is the timeout of an action whose Timeout is zero.
const DefaultTimeout = 5 * time.Second

// Action is one step of a chain. Exactly one of Exec, FreeSWITCH, Memcached, HTTP and
// Mail is set.
type Action struct {
	On Phase
	// Exec is a program, by its absolute path, and its arguments.
	Exec []string
	// User is the user that the program runs as; "" is the agent's own user, without its
	// capabilities. It needs Exec. A user other than the agent's needs the hooks service.
	User string
	// FreeSWITCH is a list of API commands and ready-made verbs (profile-start NAME,
	// profile-recover NAME, standby-on, standby-off, pause, resume, flush), run in order
	// on one connection. The list ends at the first that fails, because later ones build
	// on earlier ones (stop, then start). Commands that do not are better separate
	// actions.
	FreeSWITCH []string
	// Memcached is a list of servers (host:port). Each gets its own flush_all.
	Memcached []string
	// HTTP is a URL that the event is posted to as JSON. If SecretFile is set, the body
	// is signed with the secret in it: see SignatureHeader.
	HTTP, SecretFile string
	// Mail is a list of recipients.
	Mail []string
	// Timeout limits the whole action, including all commands of a list, each time it is
	// tried. Zero means DefaultTimeout.
	Timeout time.Duration
	// Retries is how often the action is tried again after a failure, with growing
	// pauses; see Backoff.
	Retries int
	// GiveBack asks for another holder once the action has failed for good (on_failure =
	// "release"). The rest of the chain is then skipped. It is only for acquire and for
	// prepare, where it means "not ready".
	GiveBack bool
	// When lists the causes for which the action runs; empty means all.
	When []Cause
}

// Check refuses an action that could never do what it says, with one line.
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

// appliesTo reports whether the action belongs to the chain of that phase for that cause.
// An invalid action belongs to every chain, so that it is reported and not lost.
func (a Action) appliesTo(p Phase, c Cause) bool {
	if !a.On.valid() {
		return true
	}
	return a.On == p && (len(a.When) == 0 || slices.Contains(a.When, c))
}

// The shortest and the longest pause between two tries of an action.
const (
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// Backoff is the pause before the n-th retry, counted from 1: 0.2 s, then twice as long
// each time, at most 5 s.
func Backoff(n int) time.Duration {
	d := firstBackoff
	for ; n > 1 && d < maxBackoff; n-- {
		d *= 2
	}
	return min(d, maxBackoff)
}

// Longest returns how long the chain of a phase can take at most, by its timeouts and
// retries.
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

// Event is what an action is told about the takeover; a program gets it in its
// environment. Cause is for the actions' When; Reason is the agent's more detailed word.
type Event struct {
	VIP, Address, Node, Previous string
	Epoch                        uint64
	Cause                        Cause
	Reason                       string
	// Name, if set, replaces the phase's name in what actions are told.
	Name string
	// Subject and Text are for people: in mails; Text also in webhooks.
	Subject, Text string
}

// name returns what actions are told as the event's name.
func (e Event) name(phase Phase) string {
	if e.Name != "" {
		return e.Name
	}
	return string(phase)
}

// searchPath is the whole PATH of a program: Debian's default for services.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environ returns the whole environment of a program. Nothing of the agent's own is
// passed on: with NOTIFY_SOCKET and WATCHDOG_PID a script could speak for the agent, and
// GODEBUG would change how a Go program behaves.
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

// Outcome is the result of one action.
type Outcome struct {
	// Action is a short label: `exec /etc/x`, `freeswitch sofia profile vip1 recover`,
	// `memcached 127.0.0.1:11211`.
	Action string
	// Epoch is the fencing token that the action carried. After Raised it may be above
	// the epoch its chain was started with.
	Epoch uint64
	// Started is when the action started, as read from Options.Now, in ns.
	Started int64
	// Took is how long it ran, including retries and the pauses between them.
	Took time.Duration
	// Attempts is how often it was tried.
	Attempts int
	OK       bool
	// Skipped means that the action never started; Err says why.
	Skipped bool
	// Err is one line, empty if OK.
	Err string
	// Note is one line about an action that succeeded but needs a look.
	Note string
	// Output is what the action printed or was answered, at most about 4 KiB: the
	// beginning and the end, with a mark for what was cut between them.
	Output string
}

// End is how a chain ended.
type End struct {
	// OK means that every action ran and succeeded.
	OK bool
	// GiveBack is the error, in one line, of a failed action that asks for another
	// holder; "" if there is none.
	GiveBack string
}
