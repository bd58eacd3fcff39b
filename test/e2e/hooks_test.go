package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// recorder is an action program that records what it was told.
const recorder = `#!/bin/sh
echo "$SIPALIVE_EVENT $SIPALIVE_VIP $SIPALIVE_ADDRESS $SIPALIVE_NODE $SIPALIVE_PREVIOUS $SIPALIVE_EPOCH $SIPALIVE_REASON $2" >> "$1"
[ "$SIPALIVE_EVENT" = prepare ] && [ "$2" = first ] && env > "$1.env"
echo "recorded $SIPALIVE_EVENT"
`

// hooked is a site whose actions record themselves in a file.
type hooked struct {
	*site
	record string
}

// TestHooks checks what actions are told, when and in which order, and that no action
// ever delays a takeover.
func TestHooks(t *testing.T) {
	dir := t.TempDir()
	h := hooked{record: filepath.Join(dir, "record")}
	script, hang := filepath.Join(dir, "record.sh"), filepath.Join(dir, "hang.sh")
	writeScript(t, script, recorder)
	// The program and its child write down their process ids, and stay.
	writeScript(t, hang, "#!/bin/sh\nsleep 1000 &\necho $$ $! > \"$1\"\nwait\n")
	actions := ""
	for _, phase := range []string{"prepare", "acquire", "release", "retire"} {
		for _, n := range []string{"first", "second"} {
			actions += fmt.Sprintf("[[vip.action]]\non = %q\nexec = [%q, %q, %q]\n", phase, script, h.record, n)
		}
	}
	hangs := fmt.Sprintf("[[vip.action]]\non = \"acquire\"\nexec = [%q, %q]\ntimeout = \"2s\"\n", hang, filepath.Join(dir, "hung"))
	h.site = start(t, cluster.Options{TOML: calm, VIP: func(i int) string {
		if i == 1 {
			return actions
		}
		return hangs
	}})
	h.scene(t, "planned move", moves{1, 0}, h.onMove)
	h.scene(t, "PBX killed", moves{1, 0}, h.onKill)
	h.scene(t, "agent restarted", moves{0, 0}, h.onRestart)
	h.scene(t, "hanging action", moves{0, 1}, func(t *testing.T, at time.Duration) { h.hanging(t, at, filepath.Join(dir, "hung")) })
}

func writeScript(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// lines waits until n lines were recorded, and returns them.
func (h hooked) lines(t *testing.T, n int) []string {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	var lines []string
	h.must(t, lab.WaitFor(ctx, fmt.Sprintf("%d lines of the actions", n), func() error {
		text, err := os.ReadFile(h.record)
		lines = strings.Split(strings.TrimSpace(string(text)), "\n")
		if err == nil && len(lines) < n {
			err = fmt.Errorf("%q", lines)
		}
		return err
	}))
	return lines
}

// told returns the line that an action records. previous is the node that held the VIP
// before the acquisition of this epoch.
func (h hooked) told(phase, node, previous string, epoch uint64, reason, nth string) string {
	return fmt.Sprintf("%s vip1 %v %s %s %d %s %s", phase, h.VIPs[0], node, previous, epoch, reason, nth)
}

// chain returns the lines of one phase in order.
func (h hooked) chain(phase, node, previous string, epoch uint64, reason string) []string {
	return []string{h.told(phase, node, previous, epoch, reason, "first"), h.told(phase, node, previous, epoch, reason, "second")}
}

// ordered asserts that the lines selected by of are exactly these, in this order.
func ordered(t *testing.T, lines []string, of func(string) bool, want ...[]string) {
	t.Helper()
	got := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !of(l) })
	if all := slices.Concat(want...); !slices.Equal(got, all) {
		t.Errorf("actions:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(all, "\n"))
	}
}

func phases(list ...string) func(string) bool {
	return func(line string) bool { return slices.Contains(list, strings.Fields(line)[0]) }
}

func (h hooked) forget(t *testing.T) {
	t.Helper()
	if err := os.Remove(h.record); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

// onMove: prepare runs before the move, acquire and release after it, retire when the
// acquire chain has ended.
func (h hooked) onMove(t *testing.T, at time.Duration) {
	h.quiet(t)
	e := h.epoch(t, 0)
	h.done(t, 0, "move", "vip1", "pbx3")
	lines := h.lines(t, 8)
	prepare, acquire := h.chain("prepare", "pbx3", "pbx1", e+1, "move"), h.chain("acquire", "pbx3", "pbx1", e+1, "move")
	before := h.previous(t, 0, e)
	release, retire := h.chain("release", "pbx1", before, e, "move"), h.chain("retire", "pbx1", before, e, "move")
	ordered(t, lines, phases("prepare", "acquire", "retire"), prepare, acquire, retire)
	ordered(t, lines, phases("prepare", "release", "retire"), prepare, release, retire)
	h.environment(t)
	h.timeline(t, 2, e+1, "move", []string{"exec", "exec", "exec", "exec"})
}

// environment checks that the agent's own environment is not passed on.
func (h hooked) environment(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(h.record + ".env")
	h.must(t, err)
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		name, _, _ := strings.Cut(line, "=")
		if !strings.HasPrefix(name, "SIPALIVE_") && !slices.Contains([]string{"PATH", "PWD", "_", "SHLVL", "OLDPWD"}, name) {
			t.Errorf("an action's environment has %s", line)
		}
	}
}

// onKill: when a PBX dies, its agent still helps to move.
func (h hooked) onKill(t *testing.T, at time.Duration) {
	h.quiet(t)
	e := h.epoch(t, 0)
	h.PBX(0).Kill()
	h.hears(t, 0, "pbx3", at)
	lines := h.lines(t, 8)
	prepare, acquire := h.chain("prepare", "pbx3", "pbx1", e+1, "sip"), h.chain("acquire", "pbx3", "pbx1", e+1, "sip")
	before := h.previous(t, 0, e)
	release, retire := h.chain("release", "pbx1", before, e, "sip"), h.chain("retire", "pbx1", before, e, "sip")
	ordered(t, lines, phases("prepare", "acquire", "retire"), prepare, acquire, retire)
	ordered(t, lines, phases("prepare", "release", "retire"), prepare, release, retire)
	h.timeline(t, 2, e+1, "sip", []string{"exec", "exec", "exec", "exec"})
}

// previous returns the node that held vip1 before a node acquired it under this epoch.
func (h hooked) previous(t *testing.T, node int, epoch uint64) string {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	events, err := h.Client(node).Events(ctx, 1000)
	h.must(t, err)
	i := slices.IndexFunc(events, func(e control.Event) bool {
		return e.Kind == control.Takeover && e.VIP == "vip1" && e.Epoch == epoch
	})
	if i < 0 {
		t.Fatalf("no takeover of vip1 with epoch %d", epoch)
	}
	return events[i].From
}

// quiet waits until the actions of earlier moves have ended: the VIPs came home before
// this scene, and those actions do not belong to it.
func (h hooked) quiet(t *testing.T) {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	before, since := "", lab.Now()
	h.must(t, lab.WaitFor(ctx, "half a second without an action", func() error {
		text, err := os.ReadFile(h.record)
		if err != nil {
			return err
		}
		if string(text) != before {
			before, since = string(text), lab.Now()
		}
		if quiet := lab.Now() - since; quiet < 500*time.Millisecond {
			return fmt.Errorf("quiet for %v", quiet)
		}
		return nil
	}))
	h.forget(t)
}

// onRestart: a restart within the lease is no takeover and runs no action.
func (h hooked) onRestart(t *testing.T, at time.Duration) {
	h.quiet(t)
	h.restart(t, 0)
	h.status(t, 0, "pbx1 holds on", func(st control.Status) bool { return st.Quorum && st.VIPs[0].Holder == "pbx1" })
	watch(1500 * time.Millisecond)
	if text, err := os.ReadFile(h.record); err == nil {
		t.Errorf("a restart ran actions:\n%s", text)
	}
	h.undisturbed(t, at)
}

// timeline asserts the marks of the takeover with this epoch, as a node's agent reports
// it.
func (s *site) timeline(t *testing.T, node int, epoch uint64, reason string, actions []string) {
	t.Helper()
	var e control.Event
	await(t, "a complete timeline", func(ctx context.Context) error {
		events, err := s.Client(node).Events(ctx, 100)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(events, func(e control.Event) bool {
			return e.Kind == control.Takeover && !e.Told && e.Epoch == epoch && e.Outcome != ""
		})
		if i < 0 {
			return fmt.Errorf("no complete takeover with epoch %d", epoch)
		}
		e = events[i]
		return nil
	})
	var marks, ran []string
	for i, m := range e.Timeline {
		name, _, _ := strings.Cut(m.Mark, " ")
		switch {
		case m.Mark == "router proven": // the network decides when that comes
		case m.OK == nil:
			marks = append(marks, m.Mark)
		default:
			ran = append(ran, name)
			if !*m.OK || !strings.HasPrefix(m.Output, "recorded ") {
				t.Errorf("action in the timeline: %+v", m)
			}
		}
		if i > 0 && m.At < e.Timeline[i-1].At {
			t.Errorf("timeline: %s at %v after %v", m.Mark, m.At, e.Timeline[i-1].At)
		}
	}
	if want := []string{"noticed", "lease", "bound", "announced", "sip answered"}; !slices.Equal(marks, want) || !slices.Equal(ran, actions) {
		t.Errorf("timeline: marks %q and actions %q, want %q and %q", marks, ran, want, actions)
	}
	if e.Reason != reason || e.Outcome != "done" {
		t.Errorf("takeover: reason %q, outcome %q, want %q, done", e.Reason, e.Outcome, reason)
	}
}

// hanging: an action that never ends is killed, with everything that it started. The VIP
// and the heartbeats notice nothing.
func (h hooked) hanging(t *testing.T, at time.Duration, file string) {
	h.must(t, removeIfThere(file))
	h.done(t, 0, "move", "vip2", "pbx3")
	h.hears(t, 1, "pbx3", at)
	h.silent(t, 1, at, 200*time.Millisecond)
	pids := h.hung(t, file)
	moved := lab.Now()
	h.status(t, 2, "the action ended", func(control.Status) bool { return !anyAlive(pids) })
	if took := lab.Now() - moved; took > 4*time.Second {
		t.Errorf("processes %v of an action with a timeout of 2 s lived for %v", pids, took)
	}
	h.silent(t, 1, moved, 20*time.Millisecond)
	h.silent(t, 0, at, 20*time.Millisecond)
	h.status(t, 2, "verified all the same", func(st control.Status) bool { return st.VIPs[1].Verified })
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// hung waits for the process ids that the hanging action wrote.
func (h hooked) hung(t *testing.T, file string) (pids []int) {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	h.must(t, lab.WaitFor(ctx, "the hanging action", func() error {
		text, err := os.ReadFile(file)
		if err != nil || !strings.HasSuffix(string(text), "\n") {
			return fmt.Errorf("%q: %v", text, err)
		}
		pids = nil
		for _, f := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return err
			}
			pids = append(pids, pid)
		}
		return nil
	}))
	if len(pids) != 2 || !anyAlive(pids) {
		t.Fatalf("hanging action: processes %v are not there", pids)
	}
	return pids
}

func anyAlive(pids []int) bool {
	return slices.ContainsFunc(pids, func(pid int) bool { return unix.Kill(pid, 0) == nil })
}
