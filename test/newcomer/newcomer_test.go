// Package newcomer does what a new user would do by the pages alone, and times each step:
// from a fresh clone to a takeover, and from the package to a cluster of three nodes. The
// nodes are network namespaces, each with a copy of this machine's file system. `make
// newcomer` runs it; `make test` does not.
package newcomer

import (
	"bufio"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

var write = flag.Bool("newcomer.write", false, "write the table into docs/deployment.md")

// What the project promises to a newcomer.
const (
	untilTakeover = 2 * time.Minute
	untilCluster  = 10 * time.Minute
)

func TestNewcomer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root (run the tests with sudo)")
	}
	for _, tool := range []string{"git", "make", "apt-get", "kamailio", "memcached", "nsenter", "setpriv"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v (make tools)", err)
		}
	}
	d := &diary{t: t}
	d.part("From a fresh clone to a takeover seen")
	source := d.clone()
	seen := d.demo(source)
	d.part("The package")
	deb := d.build(source)

	runtime.LockOSThread() // the thread has the nodes' mounts, and ends with this goroutine
	s := newSite(t, deb)
	d.part("From the package to three nodes")
	s.install(d)
	s.configure(d)
	d.note(d.says(page, "sipalive status"), "**a cluster of three**: every VIP is held where it is at home, its PBX answers, the router follows", s.settle)
	cluster := d.total()
	s.look(d)

	t.Logf("a takeover was seen after %.1f s, the cluster stood after %.1f s\n%s", seen.Seconds(), cluster.Seconds(), d.table())
	if seen > untilTakeover {
		t.Errorf("a takeover was seen after %s, promised are %s", seen, untilTakeover)
	}
	if cluster > untilCluster {
		t.Errorf("the cluster stood after %s, promised are %s", cluster, untilCluster)
	}
	if *write && !t.Failed() {
		d.write()
	}
}

// clone clones what is committed here. Over a network it would take as long as the
// network needs.
func (d *diary) clone() (source string) {
	dir := d.t.TempDir()
	top, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		d.t.Fatal(err)
	}
	source = filepath.Join(dir, "sipalive")
	d.note("git clone", "from this disk", func() {
		if out, err := exec.Command("git", "clone", "--quiet", strings.TrimSpace(string(top)), source).CombinedOutput(); err != nil {
			d.t.Fatalf("git clone: %v\n%s", err, out)
		}
	})
	return source
}

// fresh returns the environment of a user who has never built anything with Go: every
// module is downloaded, every package compiled.
func fresh(source string) []string {
	home := filepath.Dir(source)
	return append(os.Environ(), "GOPATH="+home+"/go", "GOMODCACHE="+home+"/go/mod", "GOCACHE="+home+"/cache",
		"GOFLAGS="+os.Getenv("GOFLAGS")+" -modcacherw") // so that the test can remove the modules
}

// demo watches `make demo` as a user would. seen is when the first takeover came.
func (d *diary) demo(source string) (seen time.Duration) {
	d.says("README.md", "make demo")
	cmd := exec.Command("make", "demo")
	cmd.Dir, cmd.Env, cmd.Stderr = source, fresh(source), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	last := time.Now()
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	marks := []struct{ line, step, what string }{
		{"Three PBX nodes, two floating IPs", "make demo", "every module fetched, everything compiled, nothing cached"},
		{"Both VIPs held", "", "the cluster of the demo stands"},
		{"   vip1: pbx1 -> pbx3 in", "", "**a takeover seen: a planned move**"},
		{"   phone, vip2:", "", "a killed PBX seen"},
		{"   vip1: pbx3 -> pbx1 (default lease", "", "a silent host seen"},
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if len(marks) == 0 || !strings.HasPrefix(lines.Text(), marks[0].line) {
			continue
		}
		now := time.Now()
		d.took(marks[0].step, marks[0].what, now.Sub(last))
		if last = now; strings.Contains(marks[0].what, "a takeover seen") {
			seen = d.total()
		}
		marks = marks[1:]
	}
	if err := cmd.Wait(); err != nil || len(marks) > 0 {
		d.t.Fatalf("make demo: %v, and it did not say %v", err, marks)
	}
	return seen
}

// build makes the package in the clone.
func (d *diary) build(source string) (deb string) {
	d.note(d.says(page, "make deb"), "nfpm and its modules fetched and compiled, too", func() {
		cmd := exec.Command("make", "deb")
		cmd.Dir, cmd.Env = source, fresh(source)
		if out, err := cmd.CombinedOutput(); err != nil {
			d.t.Fatalf("make deb: %v\n%s", err, out)
		}
	})
	found, err := filepath.Glob(source + "/build/sipalive_*.deb")
	if err != nil || len(found) != 1 {
		d.t.Fatal(errors.Join(err, errors.New("no package in build/: "+strings.Join(found, " "))))
	}
	return found[0]
}
