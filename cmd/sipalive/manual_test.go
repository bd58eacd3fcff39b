package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"sipalive/config"
)

// page returns a manual page as the command prints it and as man(1) shows it, wide enough
// that nothing is wrapped.
func page(t *testing.T, name string) (source, shown string) {
	t.Helper()
	var out bytes.Buffer
	cmd := newRootCommand()
	cmd.SetArgs([]string{"manual", name})
	cmd.SetOut(&out)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	show := exec.Command("groff", "-ww", "-man", "-Kutf8", "-Tutf8", "-P-cbou", "-rLL=1000n")
	show.Stdin = bytes.NewReader(out.Bytes())
	var text, complaints bytes.Buffer
	show.Stdout, show.Stderr = &text, &complaints
	if err := show.Run(); err != nil || complaints.Len() > 0 {
		t.Fatalf("groff on %s: %v\n%s", name, err, &complaints)
	}
	return out.String(), text.String()
}

func TestManualHasEveryCommandAndFlag(t *testing.T) {
	_, shown := page(t, "sipalive.8")
	commands := allCommands(newRootCommand())
	if len(commands) < 20 {
		t.Fatalf("%d commands", len(commands))
	}
	for _, c := range commands {
		_, rest, found := strings.Cut(shown, "\n   "+c.UseLine()+"\n")
		if !found {
			t.Errorf("no section %q", c.UseLine())
			continue
		}
		own, _, _ := strings.Cut(rest, "\n   sipalive ")
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && f.Name != "help" && !strings.Contains(own, "--"+f.Name) {
				t.Errorf("%s: no --%s in:\n%s", c.UseLine(), f.Name, own)
			}
		})
	}
	if strings.Contains(shown, "demo-pbx") {
		t.Error("a hidden command is shown")
	}
}

func TestManualHasEveryKeyOfTheReference(t *testing.T) {
	_, shown := page(t, "sipalive.toml.5")
	seen := 0
	for line := range strings.Lines(string(config.Reference())) {
		code, comment := splitComment(strings.TrimSpace(line))
		name, _, assignment := strings.Cut(code, " = ")
		for _, want := range []string{strings.TrimSpace(name) + " = ", comment} {
			if assignment && !strings.Contains(shown, want) {
				t.Errorf("%q is not in the page", want)
			}
		}
		if strings.HasPrefix(code, "[") && !strings.Contains(shown, "\n   "+code+"\n") {
			t.Errorf("no section %s", code)
		}
		seen++
	}
	if seen < 100 {
		t.Fatalf("%d lines of the reference", seen)
	}
}

func TestManualPageThatIsNone(t *testing.T) {
	cmd := newRootCommand()
	cmd.SetArgs([]string{"manual", "sipalive.1"})
	const want = `sipalive manual: no page "sipalive.1", one of sipalive.8, sipalive.toml.5 (sipalive manual --help)`
	if err := cmd.Execute(); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestRoffEscapes: text that looks like requests of roff is shown as it is.
func TestRoffEscapes(t *testing.T) {
	for in, want := range map[string]string{
		`.SH x`: `\&.SH x`, `'x`: `\&'x`, `a\b`: `a\eb`, `--json`: `\-\-json`, `a.b`: `a.b`,
	} {
		if got := escape(in); got != want {
			t.Errorf("escape(%q) = %q, want %q", in, got, want)
		}
	}
}
