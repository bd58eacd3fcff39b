package hooks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRunCheck(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		script string
		code   int
		text   string
	}{
		"ok":          {"echo 'DB OK - 3 ms'; echo more", CheckOK, "DB OK - 3 ms"},
		"warning":     {"echo slow; exit 1", CheckWarning, "slow"},
		"critical":    {"echo 'no master' >&2; exit 2", CheckUnfit, "no master"},
		"unknown":     {"exit 3", CheckUnknown, ""},
		"another one": {"exit 4", CheckUnknown, "exit status 4"},
		"killed":      {"kill -9 $$", CheckUnknown, "signal: killed"},
		"too slow":    {"sleep 60", CheckUnknown, "no end within 300ms, its process group was killed"},
		"its node":    {`echo "$SIPALIVE_NODE $HOME"`, CheckOK, "pbx1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			timeout := patience
			if name == "too slow" {
				timeout = 300 * time.Millisecond
			}
			code, text := RunCheck(t.Context(), "pbx1", []string{path}, timeout)
			if code != c.code || !strings.HasSuffix(text, c.text) || strings.Contains(text, "\n") {
				t.Errorf("%d %q, want %d %q", code, text, c.code, c.text)
			}
		})
	}
	if code, text := RunCheck(t.Context(), "pbx1", []string{"/no/such"}, patience); code != CheckUnknown || !strings.Contains(text, "no such file") {
		t.Errorf("%d %q", code, text)
	}
}
