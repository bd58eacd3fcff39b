package host

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/test/lab"
)

// reload lets a node's agent read the file again.
func (s *site) reload(node int) {
	s.t.Helper()
	out, stderr, code := s.command(node, "reload", "--run-dir", s.RunDir(node))
	if code != 0 {
		s.t.Fatalf("reload on %s: exit %d: %s%s", s.Node(node).Name, code, out, stderr)
	}
	s.t.Logf("%s: %s", s.Node(node).Name, strings.TrimSpace(out))
}

// said waits until a node's agent has logged a text.
func (s *site) said(node int, text string) {
	s.t.Helper()
	s.await(fmt.Sprintf("%q in the log of %s", text, s.Node(node).Name), func(context.Context) error {
		if !strings.Contains(s.Agent(node).Output(), text) {
			return fmt.Errorf("not yet")
		}
		return nil
	})
}

// TestReload changes the file of a running cluster. What the change does not concern
// notices nothing.
func TestReload(t *testing.T) {
	s := start(t, options{}, vip1, vip2)
	begun, epochs := lab.Now(), s.epochs(0)
	t.Run("bad file", func(t *testing.T) { s.t = t; s.badFile() })
	s.write(3, vip1, vip2, vip3)
	s.listen(vip3)
	t.Run("VIP added", func(t *testing.T) {
		s.t = t
		for i := range 3 {
			s.reload(i)
		}
		s.rest(3, vip1, vip2, vip3)
	})
	t.Run("node added", func(t *testing.T) {
		s.t = t
		s.write(4, vip1, vip2, vip3)
		must(t, s.StartAgent(3))
		for i := range 3 {
			s.reload(i)
		}
		s.rest(4, vip1, vip2, vip3)
		moved := vip3
		moved.prefer = "pbx4"
		s.home(moved)
	})
	t.Run("announcements limited", func(t *testing.T) {
		s.t = t
		s.limitAnnouncements()
	})
	t.Run("VIP removed", func(t *testing.T) {
		s.t = t
		s.write(4, vip1, vip2)
		must(t, s.Agent(3).Signal(unix.SIGHUP)) // the VIP's holder first
		s.said(3, "reloaded: VIP vip3 (10.77.0.103) removed")
		for i := range 3 {
			s.reload(i)
		}
		s.rest(4, vip1, vip2)
		s.await("nobody has vip3", func(context.Context) error {
			if on := s.boundOn(vip3); len(on) > 0 {
				return fmt.Errorf("it is at %v", on)
			}
			return nil
		})
	})
	t.Run("interface changed", func(t *testing.T) {
		s.t = t
		s.changeInterface()
	})
	t.Run("lease changed", func(t *testing.T) {
		s.t = t
		for _, lease := range []string{"3s", "600ms"} {
			s.write(4, vip1, vip2)
			text, err := os.ReadFile(s.file)
			must(t, err)
			must(t, os.WriteFile(s.file, []byte(strings.Replace(string(text), "[timing]\n", "[timing]\nlease = \""+lease+"\"\n", 1)), 0o644))
			for i := range 4 {
				s.reload(i)
			}
			s.rest(4, vip1, vip2)
			time.Sleep(2 * time.Second) // longer than any grant from before
		}
	})
	s.t = t
	s.undisturbed(begun, vip1, vip2)
	if now := s.epochs(0); !maps.Equal(now, epochs) {
		t.Errorf("epochs %v, were %v before", now, epochs)
	}
}

// limitAnnouncements: under a limit, the reply form of a takeover's first announcement
// leaves 50 ms after the request form; without a limit, right after it. If the router's
// side stood still meanwhile, it hears both together; then the test listens to another
// move.
func (s *site) limitAnnouncements() {
	limit := func(top string) {
		s.top = top
		s.write(4, vip1, vip2, vip3)
		for i := range 4 {
			s.reload(i)
		}
	}
	limit("[announce]\nlimit = 5\n")
	heard := s.listenClaims()
	v, home := vip3, vip3
	home.prefer = "pbx4"
	apart := time.Duration(0)
	for try := 0; try < 5 && apart < 40*time.Millisecond; try++ {
		since := lab.Now()
		s.home(v)
		s.await("both forms", func(context.Context) (err error) {
			apart, err = heard.between(v, s.Node(2).MAC.String(), since)
			return err
		})
		s.t.Logf("the two forms were heard %v apart", apart)
		s.home(home)
	}
	if apart < 40*time.Millisecond {
		s.t.Errorf("the two forms were heard %v apart", apart)
	}
	limit("")
}

// between returns how long after the request form the reply form of a VIP's announcement
// was first heard.
func (c *claims) between(v vipAt, mac string, since time.Duration) (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := map[bool]time.Duration{}
	for _, h := range c.heard {
		if _, known := first[h.reply]; h.at >= since && h.ip == v.address && h.mac == mac && h.announces && !known {
			first[h.reply] = h.at
		}
	}
	if len(first) < 2 {
		return 0, fmt.Errorf("heard are %d", len(first))
	}
	return first[true] - first[false], nil
}

// changeInterface: a held VIP follows the file from one interface to another.
func (s *site) changeInterface() {
	v := apart
	s.write(4, vip1, vip2, v)
	for i := range 4 {
		s.reload(i)
	}
	s.home(v)
	epoch := s.epochs(0)[v.name]
	v.dev = "vip0x"
	s.write(4, vip1, vip2, v)
	for i := range 4 {
		s.reload(i)
	}
	s.await("apart on its new interface alone", func(context.Context) error {
		is, was := s.ip(0, "-o addr show dev vip0x"), s.ip(0, "-o addr show dev vip0")
		if !strings.Contains(is, v.address+"/32") || strings.Contains(was, v.address) {
			return fmt.Errorf("vip0x has %q, vip0 %q", is, was)
		}
		return nil
	})
	if now := s.epochs(0)[v.name]; now != epoch {
		s.t.Errorf("epoch %d, was %d: nothing should have moved", now, epoch)
	}
	s.write(4, vip1, vip2)
	for i := range 4 {
		s.reload(i)
	}
	s.rest(4, vip1, vip2)
}

// badFile: the command prints what `check` prints, SIGHUP logs it, and nothing changes.
func (s *site) badFile() {
	good, err := os.ReadFile(s.file)
	must(s.t, err)
	defer func() { must(s.t, os.WriteFile(s.file, good, 0o644)) }()
	refuse := func(text string) string {
		s.t.Helper()
		must(s.t, os.WriteFile(s.file, []byte(text), 0o644))
		out, stderr, code := s.command(0, "reload", "--run-dir", s.RunDir(0))
		if code != 1 || out != "" || strings.Count(stderr, "\n") != 1 {
			s.t.Errorf("exit %d, %q, %q, want 1 and one line", code, out, stderr)
		}
		return stderr
	}
	refused := refuse(strings.Replace(string(good), "[timing]", "[timing]\nlaese = \"2s\"", 1))
	if _, check, code := s.command(0, "check", "-c", s.file); code != 1 || check != refused {
		s.t.Errorf("reload says\n%scheck says\n%s", refused, check)
	}
	must(s.t, s.Agent(1).Signal(unix.SIGHUP))
	s.said(1, `unknown key`)
	for _, c := range []struct{ old, new, want string }{
		{`cluster = "host"`, `cluster = "other"`, `cluster is "other", the running agent's "host"`},
		{`cluster = "host"`, "cluster = \"host\"\nport = 7000", "port is 7000, and was 7946"},
		{`cluster = "host"`, "cluster = \"host\"\nfence = \"none\"", `fence is "none", and was "auto"`},
	} {
		if got := refuse(strings.Replace(string(good), c.old, c.new, 1)); !strings.Contains(got, c.want) || !strings.Contains(got, "nothing was changed") {
			s.t.Errorf("got %q, want %q", got, c.want)
		}
	}
	s.rest(3, vip1, vip2) // with one digest
}
