package e2e

import (
	"bufio"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
)

// TestCommands runs every command's success case on a live cluster. TestTakeovers also
// covers the commands that move something.
func TestCommands(t *testing.T) {
	s := start(t, cluster.Options{TOML: calm})
	s.scene(t, "status", moves{0, 0}, s.showStatus)
	s.scene(t, "role", moves{0, 0}, s.askRole)
	s.scene(t, "plan", moves{0, 0}, s.showPlan)
	s.scene(t, "events", moves{1, 0}, s.showEvents)
	s.scene(t, "without an agent", moves{0, 0}, s.offline)
	s.scene(t, "exit codes", moves{0, 0}, s.exitCodes)
}

// matches asserts what a command printed.
func matches(t *testing.T, what, out, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(out) {
		t.Errorf("%s printed\n%s\nwant it to match %q", what, out, pattern)
	}
}

func (s *site) showStatus(t *testing.T, at time.Duration) {
	for i := range s.Nodes() {
		out := s.done(t, i, "status")
		matches(t, "status", out, `cluster demo, seen from `+s.Node(i).Name+`: quorum, fence \S+\n`)
		matches(t, "status", out, `\npbx1 +10\.77\.0\.11 +yes +yes +up +no +vip1\n`)
		matches(t, "status", out, `\nvip2 +10\.77\.0\.102 +pbx2 +held +\d+ `)
	}
	out := s.done(t, 2, "status", "--json")
	var st map[string]any
	if err := json.Unmarshal([]byte(out), &st); err != nil || strings.Count(out, "\n") != 1 {
		t.Errorf("status --json: %v: %q, want one line of JSON", err, out)
	}
	for _, key := range []string{"cluster", "node", "quorum", "fence", "nodes", "vips"} {
		if _, has := st[key]; !has {
			t.Errorf("status --json has no %q: %s", key, out)
		}
	}
	if vips, is := st["vips"].([]any); !is || len(vips) != 2 || vips[0].(map[string]any)["holder"] != "pbx1" || vips[0].(map[string]any)["verified"] != true {
		t.Errorf("status --json: vips %v", st["vips"])
	}
}

func (s *site) askRole(t *testing.T, at time.Duration) {
	for _, c := range []struct {
		node int
		args []string
		want int
	}{
		{0, []string{"--holds", "vip1"}, 0}, {0, []string{"--holds", "vip2"}, 1}, {0, []string{"--spare"}, 1},
		{2, []string{"--spare"}, 0}, {2, []string{"--holds", "vip1"}, 1}, {2, []string{"--holds", "vip9"}, 1},
	} {
		got := s.cli(t, c.node, append([]string{"role"}, c.args...)...)
		if got.code != c.want || got.out != "" || (got.err != "") != slices.Contains(c.args, "vip9") {
			t.Errorf("role %v on %s: exit %d, %q, %q, want %d", c.args, s.Node(c.node).Name, got.code, got.out, got.err, c.want)
		}
	}
}

func (s *site) showPlan(t *testing.T, at time.Duration) {
	matches(t, "plan", s.done(t, 1, "plan"), `(?m)^vip1 +pbx1 +pbx1 +pbx1: holds it$`)
	matches(t, "plan", s.done(t, 1, "plan", "--without", "pbx1"), `(?m)^vip1 +pbx1 +pbx3 +pbx3: spare$`)
	out := s.done(t, 1, "plan", "--without", "pbx1", "--without", "pbx3")
	matches(t, "plan", out, `(?m)^vip1 +pbx1 +pbx2 +pbx2: `)
	matches(t, "plan", out, `(?m)^vip2 +pbx2 +pbx2 +pbx2: holds it$`)
}

// showEvents follows the events at the new holder through a planned move, then reads them
// again as text and as JSON.
func (s *site) showEvents(t *testing.T, at time.Duration) {
	follow := exec.Command(binary, "events", "--follow", "--json", "-n", "0", "--run-dir", s.RunDir(2))
	pipe, err := follow.StdoutPipe()
	s.must(t, err)
	s.must(t, follow.Start())
	late := time.AfterFunc(patience, func() { _ = follow.Process.Kill() })
	defer late.Stop()
	s.done(t, 0, "move", "vip1", "pbx3")
	var seen control.Event
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		var e control.Event
		s.must(t, json.Unmarshal(lines.Bytes(), &e))
		if e.Kind == control.Takeover && !e.Told && e.Outcome != "" {
			seen = e
			break
		}
	}
	s.must(t, follow.Process.Signal(syscall.SIGINT))
	_ = follow.Wait() // how it ends after Ctrl-C is the shell's business
	if seen.VIP != "vip1" || seen.From != "pbx1" || seen.To != "pbx3" || seen.Outcome != "done" {
		t.Errorf("events --follow showed %+v, want the takeover of vip1 by pbx3, done", seen)
	}
	s.timeline(t, 2, seen.Epoch, "move", nil)
	out := s.done(t, 2, "events", "-n", "100")
	matches(t, "events", out, `takeover: vip1: pbx1 -> pbx3, epoch \d+, move.*: done\n +0\.0 ms  noticed\n( +[\d.]+ ms  .*\n)* +[\d.]+ ms  lease\n +[\d.]+ ms  bound\n +[\d.]+ ms  announced\n( +[\d.]+ ms  router proven\n)? +[\d.]+ ms  sip answered\n`)
	if n := strings.Count(s.done(t, 2, "events", "--json", "-n", "2"), "\n"); n != 2 {
		t.Errorf("events --json -n 2 printed %d lines", n)
	}
}

// offline runs the commands that ask no agent.
func (s *site) offline(t *testing.T, at time.Duration) {
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	out, err := s.Phone().Run(ctx, binary, "ping", "sip:"+s.VIPs[0].String())
	s.must(t, err)
	matches(t, "ping", out, `: 200 OK in [\d.]+ ms, pbx1\n$`)
	if out, err := s.Phone().Run(ctx, binary, "ping", "sip:"+netip.AddrPortFrom(s.Node(0).Addr, 5099).String()); err == nil {
		t.Errorf("ping of a closed port succeeded: %s", out)
	}
	c := s.within(t, 0, "check", "-c", s.Config)
	if c.code != 0 {
		t.Errorf("check: exit %d: %s", c.code, c.err)
	}
	matches(t, "check", c.out, `: good: cluster demo, nodes: 3, VIPs: 2, roles: 0\n$`)
	bad := s.variant(t, "[timing]\nlease = 5\n")
	if c = s.within(t, 0, "check", "-c", bad); c.code != 1 || !strings.HasPrefix(c.err, bad+":") || strings.Count(c.err, "\n") != 1 {
		t.Errorf("check of a bad file: exit %d: %q", c.code, c.err)
	}
	key := execute(t, exec.Command(binary, "keygen"))
	matches(t, "keygen", key.out, `^[A-Za-z0-9+/]{43}=\n$`)
	if again := execute(t, exec.Command(binary, "keygen")); again.out == key.out {
		t.Errorf("keygen printed %q twice", key.out)
	}
	matches(t, "version", execute(t, exec.Command(binary, "version")).out, `^sipalive .*go1\.\d+`)
	reference, err := os.ReadFile("../../config/reference.toml")
	s.must(t, err)
	if out := execute(t, exec.Command(binary, "reference")).out; out != string(reference) {
		t.Errorf("reference printed %d bytes, want the %d of config/reference.toml", len(out), len(reference))
	}
}

// exitCodes: 1 for no or failed, 2 for usage, 3 for no agent; each with exactly one line.
func (s *site) exitCodes(t *testing.T, at time.Duration) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"move", "vip9", "pbx2"}, 1}, {[]string{"move", "vip1", "pbx9"}, 1}, {[]string{"drain", "pbx9"}, 1},
		{[]string{"move", "vip1"}, 2}, {[]string{"status", "--bogus"}, 2}, {[]string{"role"}, 2}, {[]string{"statsu"}, 2},
	} {
		if got := s.cli(t, 0, c.args...); got.code != c.want || got.out != "" || strings.Count(got.err, "\n") != 1 {
			t.Errorf("%v: exit %d, %q, %q, want %d and one line", c.args, got.code, got.out, got.err, c.want)
		}
	}
	nobody := t.TempDir()
	for _, args := range [][]string{{"status"}, {"events"}, {"plan"}, {"role", "--spare"}, {"move", "vip1", "pbx2"}, {"stop"}} {
		got := execute(t, exec.Command(binary, append(args, "--run-dir", nobody)...))
		if got.code != 3 || strings.Count(got.err, "\n") != 1 {
			t.Errorf("%v without an agent: exit %d, %q, want 3 and one line", args, got.code, got.err)
		}
	}
}
