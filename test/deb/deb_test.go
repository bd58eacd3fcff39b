// Package deb builds the Debian package twice. It installs, upgrades, removes and purges
// it in a copy of this machine's file system.
package deb

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sipalive/test/overlay"
)

// build makes the package in a copy of the source, so that two builds share no file, and
// returns the package's path.
func build(t *testing.T, source, version string) string {
	t.Helper()
	cmd := exec.Command("make", "-C", source, "deb", "DEB_VERSION="+version, "SOURCE_DATE_EPOCH=1700000000")
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=auto") // Go's default, whatever is set here
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make deb: %v\n%s", err, out)
	}
	path := fmt.Sprintf("%s/build/sipalive_%s_%s.deb", source, version, runtime.GOARCH)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// copied returns a copy of the source tree, without its history and what was built.
func copied(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	script := `tar -C ../.. --exclude=./.git --exclude=./build -cf - . | tar -C "$1" -xf -`
	if out, err := exec.Command("sh", "-c", script, "sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("copy the source: %v\n%s", err, out)
	}
	return dir
}

// another returns a copy as another person has it: a clone with their own umask and a
// file that is only theirs.
func another(t *testing.T) string {
	t.Helper()
	dir := copied(t)
	script := `cd "$1" && git init -q && git add -A && git -c user.name=n -c user.email=n@example.net commit -q -m copy &&
		echo mine >untracked && chmod -R go-rwx .`
	cmd := exec.Command("sh", "-c", script, "sh", dir)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make a clone: %v\n%s", err, out)
	}
	return dir
}

func sum(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(content))
}

func bill(deb string) string { return strings.TrimSuffix(deb, "deb") + "cdx.json" }

// TestPackage is one test, since everything in it needs the packages.
func TestPackage(t *testing.T) {
	first := build(t, copied(t), "1.0.0")
	second := build(t, another(t), "1.0.0")
	for _, pair := range [][2]string{{first, second}, {bill(first), bill(second)}} {
		if a, b := sum(t, pair[0]), sum(t, pair[1]); a != b {
			t.Errorf("%s: two builds, checksums %s and %s", filepath.Base(pair[0]), a, b)
		}
	}
	// The package for the upgrade is the same except for its version.
	newer := build(t, filepath.Dir(filepath.Dir(second)), "1.1.0")

	runtime.LockOSThread() // the thread has the mount namespace, and ends with this goroutine
	r := overlay.New(t)
	for name, path := range map[string]string{"/1.0.0.deb": first, "/1.1.0.deb": newer} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r.Write(t, "/run"+name, string(content), 0o644)
	}
	withoutSystemd(t, r)
	withSystemd(t, r)
}

// installed checks what a first installation made.
func installed(t *testing.T, r *overlay.Root) {
	t.Helper()
	if out := r.Run(t, "sipalive", "version"); !strings.HasPrefix(out, "sipalive 1.0.0") {
		t.Errorf("version says %s", out)
	}
	for _, path := range []string{"/usr/share/doc/sipalive/docs/alarms.md", "/usr/lib/systemd/system/sipalive.service", "/usr/lib/systemd/system/sipalive-hooks.service",
		"/etc/sipalive/reference.toml", "/usr/share/man/man8/sipalive.8.gz", "/usr/share/man/man5/sipalive.toml.5.gz",
		"/usr/share/bash-completion/completions/sipalive", "/usr/share/zsh/vendor-completions/_sipalive",
		"/usr/share/fish/vendor_completions.d/sipalive.fish", "/usr/share/doc/sipalive/examples/freeswitch/sipalive.toml",
		"/usr/share/doc/sipalive/copyright"} {
		if !r.Exists(path) {
			t.Errorf("%s is not installed", path)
		}
	}
	if r.Exists("/etc/sipalive/key") {
		t.Error("a key is in the package, so every cluster in the world has the same")
	}
	// The drop-in names the group that the configuration gives the socket to.
	group := r.Run(t, "getent", "group", "sipalive")
	if dropIn := r.Run(t, "cat", "/usr/lib/systemd/system/sipalive.service.d/group.conf"); !strings.HasPrefix(group, "sipalive:") ||
		!strings.Contains(dropIn, "\nSupplementaryGroups=sipalive\n") {
		t.Errorf("group %q, drop-in:\n%s", group, dropIn)
	}
	if out := r.Run(t, "systemd-analyze", "verify", "sipalive.service", "sipalive-hooks.service"); strings.Contains(out, "sipalive") {
		t.Errorf("systemd says of the units:\n%s", out)
	}
	r.Run(t, "sh", "-c", "zcat /usr/share/man/man8/sipalive.8.gz | grep -q '^.SH \"EXIT STATUS\"'")
	r.Run(t, "bash", "-c", "source /usr/share/bash-completion/completions/sipalive && complete -p sipalive")
	if out := r.Run(t, "dpkg", "--verify", "sipalive"); out != "" {
		t.Errorf("dpkg --verify: %s", out)
	}
}

// used makes what an operator and the agent leave on a machine.
func used(t *testing.T, r *overlay.Root) {
	t.Helper()
	r.Write(t, "/etc/sipalive/key", "secret", 0o600)
	r.Write(t, "/etc/sipalive/sipalive.toml", goodFile, 0o644)
	r.Write(t, "/var/lib/sipalive/epochs", "7", 0o600)
	r.Write(t, "/run/sipalive/votes", "7", 0o600)
	r.Run(t, "mkdir", "-p", "/etc/systemd/system/multi-user.target.wants")
	r.Run(t, "ln", "-s", "/usr/lib/systemd/system/sipalive.service", "/etc/systemd/system/multi-user.target.wants/sipalive.service")
}

const goodFile = `cluster = "c"
key_file = "/etc/sipalive/key"
[[node]]
name = "a"
address = "192.0.2.1"
`

// withoutSystemd is a container or a chroot: dpkg only.
func withoutSystemd(t *testing.T, r *overlay.Root) {
	r.Run(t, "dpkg", "-i", "/run/1.0.0.deb")
	installed(t, r)
	used(t, r)
	r.Run(t, "dpkg", "-i", "/run/1.1.0.deb")
	if out := r.Run(t, "sipalive", "version"); !strings.HasPrefix(out, "sipalive 1.1.0") {
		t.Errorf("after the upgrade version says %s", out)
	}
	r.Run(t, "dpkg", "--remove", "sipalive")
	for path, want := range map[string]bool{"/usr/bin/sipalive": false, "/etc/sipalive/key": true, "/etc/sipalive/sipalive.toml": true,
		"/etc/sipalive/reference.toml": true, "/var/lib/sipalive/epochs": true} {
		if r.Exists(path) != want {
			t.Errorf("after the removal %s is there: %t", path, !want)
		}
	}
	purged(t, r)
}

func purged(t *testing.T, r *overlay.Root) {
	t.Helper()
	r.Run(t, "dpkg", "--purge", "sipalive")
	if left := r.Left(t); len(left) > 0 {
		t.Errorf("the purge leaves:\n%s", strings.Join(left, "\n"))
	}
	for _, path := range []string{"/run/sipalive", "/run/sipalive-hooks"} {
		if r.Exists(path) {
			t.Errorf("the purge leaves %s", path)
		}
	}
	if out, err := r.Try("getent", "group", "sipalive"); err == nil {
		t.Errorf("the purge leaves the group: %s", out)
	}
	if out := r.Run(t, "dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n"); strings.Contains(out, " sipalive\n") {
		t.Error("dpkg still knows the package")
	}
}

// withSystemd has a systemctl that records what it is told. test/unit shows what a
// restart does to the leases.
func withSystemd(t *testing.T, r *overlay.Root) {
	r.Write(t, "/usr/local/bin/systemctl", "#!/bin/sh\necho \"$@\" >>/run/told\n", 0o755)
	r.Run(t, "mkdir", "-p", "/run/systemd/system", "/usr/local/bin")
	told := func(step string, want ...string) {
		t.Helper()
		text := r.Run(t, "sh", "-c", "touch /run/told; cat /run/told; rm /run/told")
		got := strings.FieldsFunc(text, func(c rune) bool { return c == '\n' })
		if !slices.Equal(got, want) {
			t.Errorf("%s: systemd is told %q, want %q", step, got, want)
		}
	}
	r.Run(t, "dpkg", "-i", "/run/1.0.0.deb")
	told("installation", "daemon-reload")
	used(t, r)
	r.Run(t, "dpkg", "-i", "/run/1.1.0.deb")
	told("upgrade", "daemon-reload", "try-restart sipalive-hooks.service", "try-restart sipalive.service")
	r.Write(t, "/etc/sipalive/sipalive.toml", goodFile+"nonsense = 1\n", 0o644)
	out := r.Run(t, "dpkg", "-i", "/run/1.0.0.deb")
	told("another version with a file that is not good", "daemon-reload")
	for _, want := range []string{"/etc/sipalive/sipalive.toml:6: ", "not restarted, the old agent goes on"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	r.Run(t, "dpkg", "--remove", "sipalive")
	told("removal", "stop sipalive.service", "stop sipalive-hooks.service", "daemon-reload")
	r.Run(t, "rm", "/usr/local/bin/systemctl")
	r.Run(t, "rmdir", "/run/systemd/system")
	purged(t, r)
}
