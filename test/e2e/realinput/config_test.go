package realinput

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
)

// TestConfigFromHell: whatever a file contains, `sipalive check` and `sipalive run` soon
// print one line and exit with 1, without using much memory.
func TestConfigFromHell(t *testing.T) {
	rest := "key_file = \"/etc/sipalive/key\"\n" + nodesOnly(1) + vips(1)
	files := map[string]struct{ text, want string }{
		"2,000 VIPs":          {nodes(3) + vips(2000), "too many"},
		"65 nodes":            {nodes(65) + vips(1), "too many"},
		"one huge string":     {fmt.Sprintf("cluster = %q\n", strings.Repeat("x", 900<<10)) + rest, "cluster"},
		"beyond any file":     {strings.Repeat("# comment\n", 1<<20), "larger than"},
		"one endless line":    {"cluster = \"" + strings.Repeat("x", 900<<10), ""},
		"arrays in arrays":    {"cluster = " + strings.Repeat("[", 400<<10), ""},
		"closed arrays":       {"cluster = " + strings.Repeat("[", 100<<10) + strings.Repeat("]", 100<<10), ""},
		"tables in tables":    {"cluster = " + strings.Repeat("{a=", 200<<10), ""},
		"dotted keys":         {strings.Repeat("a.", 400<<10) + "a = 1\n", "parts"},
		"dotted table":        {"[" + strings.Repeat("a.", 400<<10) + "a]\n", "parts"},
		"many dotted keys":    {many(20_000, func(i int) string { return fmt.Sprintf("a.b%d.c = 1\n", i) }), ""},
		"many tables":         {many(60_000, func(i int) string { return fmt.Sprintf("[t%d]\n", i) }), ""},
		"many array tables":   {nodes(1) + strings.Repeat("[[vip]]\n", 100_000), ""},
		"NUL bytes":           {"cluster = \"a\x00b\"\n" + rest, "control characters"},
		"only NUL bytes":      {strings.Repeat("\x00", 1<<19), ""},
		"no UTF-8":            {"cluster = \"\xff\xfe\"\n", ""},
		"byte order mark":     {"\ufeff\ufeffcluster = \"a\"\n", ""},
		"escape sequences":    {"cluster = \"\\u001b[2J\\u0007\"\n" + rest, "cluster"},
		"terminal in a key":   {"\"\\u001b[2J\\u009b\" = 1\n", ""},
		"numbers":             {head + "port = 99999999999999999999999999\n", ""},
		"infinite duration":   {nodes(1) + vips(1) + "[timing]\nlease = \"1e400h\"\n", "lease"},
		"a date":              {"cluster = 2026-11-21T00:00:00Z\n", ""},
		"names like each":     {nodes(3) + nodesOnly(3) + vips(1), "n0"},
		"nothing":             {"", ""},
		"not even a file":     {"\x7fELF\x02\x01\x01" + strings.Repeat("\x00\xff", 4096), ""},
		"carriage returns":    {strings.Repeat("\r", 1<<19), ""},
		"many unknown keys":   {many(40_000, func(i int) string { return fmt.Sprintf("k%d = 1\n", i) }), ""},
		"huge action command": {nodes(1) + vips(1) + "[[vip.action]]\non = \"acquire\"\nexec = [" + strings.Repeat("\"\\u0000\",", 50_000) + "]\n", ""},
	}
	for name, f := range files {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sipalive.toml")
			must(t, os.WriteFile(path, []byte(f.text), 0o644))
			refused(t, f.want, "check", "-c", path)
			refused(t, f.want, "run", "-c", path, "--run-dir", t.TempDir())
		})
	}
	t.Run("special files", func(t *testing.T) {
		dir := t.TempDir()
		fifo := filepath.Join(dir, "fifo")
		must(t, syscall.Mkfifo(fifo, 0o600))
		loop := filepath.Join(dir, "loop")
		must(t, os.Symlink(loop, loop))
		for _, path := range []string{fifo, loop, dir, "/dev/zero", "/dev/null", "/proc/self/mem", filepath.Join(dir, "none")} {
			refused(t, "", "check", "-c", path)
		}
	})
	t.Run("as large as it may be", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "sipalive.toml")
		must(t, os.WriteFile(path, []byte(head+"[timing]\nheartbeat = \"100ms\"\n"+nodesOnly(64)+vips(256)), 0o644))
		r := execute(t, "check", "-c", path)
		if r.code != 0 || !strings.Contains(r.out, "nodes: 64, VIPs: 256") {
			t.Errorf("64 nodes and 256 VIPs: exit %d, %q, %q", r.code, r.out, r.err)
		}
		r.bounded(t)
	})
}

const head = "cluster = \"hell\"\nkey_file = \"/etc/sipalive/key\"\n"

func nodes(n int) string { return head + nodesOnly(n) }

func nodesOnly(n int) string {
	return many(n, func(i int) string { return fmt.Sprintf("[[node]]\nname = \"n%d\"\naddress = \"10.9.0.%d\"\n", i, i+1) })
}

func vips(n int) string {
	return many(n, func(i int) string {
		return fmt.Sprintf("[[vip]]\nname = \"v%d\"\naddress = \"10.8.%d.%d\"\ninterface = \"lo\"\n", i, i/250, i%250+1)
	})
}

func many(n int, line func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(line(i))
	}
	return b.String()
}

// result is the outcome of one run of the binary.
type result struct {
	out, err string
	code     int
	took     time.Duration
	mb       int64 // the most memory that it used
}

func execute(t *testing.T, args ...string) (r result) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	start := time.Now()
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return result{out.String(), stderr.String(), cmd.ProcessState.ExitCode(), time.Since(start), usage.Maxrss >> 10}
}

// refused asserts one clear line, fit for a terminal, and exit code 1.
func refused(t *testing.T, want string, args ...string) {
	t.Helper()
	r := execute(t, args...)
	line, rest, _ := strings.Cut(r.err, "\n")
	switch {
	case r.code != 1:
		t.Errorf("sipalive %s: exit %d, want 1: %.300q", args[0], r.code, r.err)
	case line == "" || rest != "" || r.out != "":
		t.Errorf("sipalive %s: want one line on stderr and none on stdout: %.300q, %.300q", args[0], r.err, r.out)
	case utf8.RuneCountInString(line) > 1000 || !utf8.ValidString(line) || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c >= 0x7f && c < 0xa0 }):
		t.Errorf("sipalive %s: no line for a terminal: %.1200q", args[0], line)
	case !strings.Contains(line, want):
		t.Errorf("sipalive %s: %q does not say %q", args[0], line, want)
	}
	r.bounded(t)
	if args[0] == "check" {
		t.Logf("%v, %d MB: %s", r.took.Round(time.Millisecond), r.mb, line)
	}
}

func (r result) bounded(t *testing.T) {
	t.Helper()
	if r.took > 5*time.Second || r.mb > 256 {
		t.Errorf("it took %v and %d MB, at most 5s and 256 MB expected", r.took, r.mb)
	}
}
