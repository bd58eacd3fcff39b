package agent

import (
	"context"
	"os"
	"strings"
	"testing"

	"sipalive/config"
)

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("home.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestNeedsRestart: a change that a running agent cannot take is refused, and the refusal
// names it.
func TestNeedsRestart(t *testing.T) {
	was := parse(t, home)
	for _, c := range []struct{ old, new, want string }{
		{`"pbx-dc1"`, `"pbx-dc2"`, `cluster is "pbx-dc2", the running agent's "pbx-dc1"`},
		{`"192.0.2.13"`, `"192.0.2.14"`, "the address of pbx3 is another"},
		{"address = \"192.0.2.13\"", "address = \"192.0.2.13\"\nholder = false", "holder of pbx3 is false, and was true"},
		{`"/etc/sipalive/key"`, "\"/etc/sipalive/key\"\nport = 7000", "port is 7000, and was 7946"},
		{`"/etc/sipalive/key"`, "\"/etc/sipalive/key\"\nfence = \"bpf\"", `fence is "bpf", and was "auto"`},
		{"[[role]]", "[control]\ngroup = \"wheel\"\n[[role]]", "[control] is another"},
		{`"192.0.2.12"`, `"192.0.2.14"`, ""},                                        // another node's address
		{"prefer = [\"pbx1\"]", "prefer = [\"pbx2\"]\nweight = 3", ""},              // a VIP
		{"[[role]]", "[timing]\nlease = \"2s\"\n[[role]]", ""},                      // timing
		{"address = \"192.0.2.13\"", "address = \"192.0.2.13\"\nvoter = false", ""}, // voter lists have their own rules
	} {
		is := parse(t, strings.Replace(home, c.old, c.new, 1))
		if got := needsRestart(was, is, was.Node("pbx3"), is.Node("pbx3")); got != c.want {
			t.Errorf("%s: got %q, want %q", c.new, got, c.want)
		}
	}
	if got := needsRestart(was, was, was.Node("pbx3"), was.Node("pbx2")); got != "this node is pbx2, and was pbx3" {
		t.Errorf("another node: %q", got)
	}
}

// TestReloadOutlivesItsAsker: a reload that the loop has got is carried out, and its
// result is told, even if its caller does not wait any more.
func TestReloadOutlivesItsAsker(t *testing.T) {
	r := newRecording(t)
	a := r.a
	a.Directory = openDirectory(t, t.TempDir())
	a.queries, a.ended = make(chan func(), 1), make(chan struct{})
	a.Load = func() (File, error) { return File{Config: a.Config(), Self: a.Self}, nil }
	if err := os.RemoveAll(a.Directory.Run()); err != nil { // so that the reload fails
		t.Fatal(err)
	}
	ctx, gone := context.WithCancel(context.Background())
	gone()
	go func() { (<-a.queries)() }()
	if _, err := a.Reload(ctx); err == nil || !strings.Contains(err.Error(), "leases.new: no such file or directory (nothing was changed)") {
		t.Errorf("got %v, want what became of it", err)
	}
}

func TestDifferences(t *testing.T) {
	was := parse(t, home)
	more := home + "[[node]]\nname = \"pbx4\"\naddress = \"192.0.2.14\"\n[[vip]]\nname = \"vip2\"\naddress = \"192.0.2.102\"\n"
	for text, want := range map[string]string{
		home: "reloaded: nothing is different",
		more: "reloaded: node pbx4 added, VIP vip2 (192.0.2.102) added",
		strings.Replace(home, "192.0.2.101", "192.0.2.105", 1): "reloaded: VIP vip1 (192.0.2.105) added, VIP vip1 (192.0.2.101) removed",
		strings.Replace(home, `"cdr"`, `"billing"`, 1):         "reloaded: role billing added, role cdr removed",
		strings.Replace(home, "[\"pbx1\"]", "[\"pbx2\"]", 1):   "reloaded: settings changed",
	} {
		if got := differences(was, parse(t, text)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
