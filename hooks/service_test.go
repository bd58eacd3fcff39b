package hooks

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serve runs a hooks service and returns its socket.
func serve(t *testing.T, agents ...uint32) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sipalive-hooks-") // t.TempDir's path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "hooks.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755, socket: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, agents...) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		os.RemoveAll(dir)
	})
	return socket
}

const whoami = `id -u; id -g; grep CapEff /proc/self/status; echo "$SIPALIVE_EVENT"; echo "$HOME"`

func TestServiceRunsAsWhomItIsTold(t *testing.T) {
	r := newTestRunner(t, Options{Service: serve(t)})
	for user, want := range map[string]string{
		"":       "0\n0\nCapEff:\t" + capsNone + "\nacquire\n\n",
		"nobody": "65534\n65534\nCapEff:\t" + capsNone + "\nacquire\n\n",
	} {
		a := sh(whoami)
		a.User = user
		if o := runOne(t, r, a); !o.OK || o.Output != want {
			t.Errorf("user %q: %+v, want %q", user, o, want)
		}
	}
	a := sh("grep CapEff /proc/self/status")
	a.User = "root"
	if o := runOne(t, r, a); !o.OK || strings.Contains(o.Output, capsNone) {
		t.Errorf("root by name: %+v", o)
	}
	a.User = "no-such-user"
	if o := runOne(t, r, a); o.OK || o.Err != "exec /bin/sh: user no-such-user: no such user on this node" {
		t.Errorf("%+v", o)
	}
}

func TestServiceReportsAsTheAgentDoes(t *testing.T) {
	byItself, byService := newTestRunner(t, Options{}), newTestRunner(t, Options{Service: serve(t)})
	long := sh("sleep 1000")
	long.Timeout = 300 * time.Millisecond
	for _, a := range []Action{sh("echo out; exit 3"), sh("kill -TERM $$"), {Exec: []string{"/no/such"}}, long, sh("sleep 1000 & exit 0")} {
		want, got := runOne(t, byItself, a), runOne(t, byService, a)
		if got.OK != want.OK || got.Err != want.Err || got.Note != want.Note || got.Output != want.Output {
			t.Errorf("%q:\nby the service %+v\nby the agent   %+v", a.Exec, got, want)
		}
	}
}

// TestServiceTakesRequestsOfEveryLength: the newline that ends a request may stay unread
// if the JSON before it exactly fills the decoder's buffer (512, 1536, ...).
func TestServiceTakesRequestsOfEveryLength(t *testing.T) {
	socket := serve(t)
	ask := func(argument string) (size int, rep reply) {
		t.Helper()
		text, err := json.Marshal(request{program{Argv: []string{"/bin/sleep", "0.02", argument}, Env: []string{}}, patience})
		must(t, err)
		conn, err := net.Dial("unix", socket)
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(patience)))
		_, err = conn.Write(append(text, '\n'))
		must(t, err)
		must(t, json.NewDecoder(conn).Decode(&rep))
		return len(text), rep
	}
	bare, _ := ask("")
	for _, span := range [][2]int{{500, 520}, {1530, 1540}} {
		for want := span[0]; want <= span[1]; want++ {
			// sleep adds its arguments: this second one is 0, however long
			if size, rep := ask(strings.Repeat("0", want-bare)); size != want || rep.Err != "" {
				t.Errorf("a request of %d bytes, wanted %d: %+v", size, want, rep)
			}
		}
	}
}

// TestServiceEndsWhatItsAgentLeaves: when an agent is gone, its actions are killed.
func TestServiceEndsWhatItsAgentLeaves(t *testing.T) {
	r := NewRunner(Options{Now: testNow, Service: serve(t)})
	file := filepath.Join(t.TempDir(), "pid")
	j := newJournal()
	r.Start("vip1", Acquire, 1, Event{}, []Action{sh("echo $$ > " + file + ".new; mv " + file + ".new " + file + "; trap '' TERM; sleep 1000")}, j.report, j.done)
	eventually(t, "the action begins", func() bool { return exists(file) })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pgid := groupOf(t, Outcome{Output: string(text)})
	eventually(t, "its group ends", func() bool { return len(living(t, pgid)) == 0 })
}

func TestWithoutServiceTheAgentRunsIt(t *testing.T) {
	dir := t.TempDir()
	r := newTestRunner(t, Options{Service: filepath.Join(dir, "none")})
	if o := runOne(t, r, sh("echo here")); !o.OK || o.Output != "here\n" {
		t.Errorf("%+v", o)
	}
}

// TestServiceServesNoStranger: the request of another user's program is not even read.
func TestServiceServesNoStranger(t *testing.T) {
	for _, tt := range []struct {
		agents []uint32
		served bool
	}{{nil, false}, {[]uint32{65534}, true}} {
		socket := serve(t, tt.agents...)
		cmd := exec.Command("/usr/bin/python3", "-c", `
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(b'{"argv":["/usr/bin/id","-u"],"env":[],"timeout":5000000000}\n')
print(s.makefile().read())`, socket)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if served := err == nil && strings.Contains(string(out), `"output":"65534\n"`); served != tt.served {
			t.Errorf("allowed %v: %v %s", tt.agents, err, out)
		}
	}
}

// TestNoServiceOfAStranger: the agent gives its actions to no other user's process.
func TestNoServiceOfAStranger(t *testing.T) {
	dir, err := os.MkdirTemp("", "sipalive-hooks-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "hooks.sock")
	cmd := exec.Command("/usr/bin/python3", "-c", `
import socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print("ready", flush=True)
c, _ = s.accept(); print(c.recv(1000), flush=True)`, socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, ready); err != nil {
		t.Fatal(err)
	}
	r := newTestRunner(t, Options{Service: socket})
	o := runOne(t, r, sh("echo secret"))
	heard, _ := io.ReadAll(out)
	_ = cmd.Wait()
	if want := fmt.Sprintf("exec /bin/sh: the hooks service: user 65534 listens at %s, neither root nor the agent's own", socket); o.Err != want {
		t.Errorf("got  %s\nwant %s", o.Err, want)
	}
	if string(heard) != "b''\n" {
		t.Errorf("it was told %s", heard)
	}
}

func TestServiceShedsGarbage(t *testing.T) {
	socket := serve(t)
	for _, garbage := range []string{"", "\x00", "{", "[]\n", `{"argv":[]}` + "\n", `{"argv":["relative"],"timeout":1000000000}` + "\n", strings.Repeat("[", maxRequest+10)} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, garbage)
		_ = conn.(*net.UnixConn).CloseWrite()
		if answer, _ := io.ReadAll(conn); len(answer) > 0 && !strings.Contains(string(answer), `"err":"exec `) {
			t.Errorf("%.20q answered with %s", garbage, answer)
		}
		conn.Close()
	}
	if o := runOne(t, newTestRunner(t, Options{Service: socket}), sh("true")); !o.OK {
		t.Errorf("after garbage: %+v", o)
	}
}

// TestTrust builds paths of every kind and checks who could replace the program.
func TestTrust(t *testing.T) {
	root, err := os.MkdirTemp("/var/lib", "sipalive-trust-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	at := func(parts ...string) string { return filepath.Join(append([]string{root}, parts...)...) }
	make := func(name string, uid, gid int, dirMode, mode os.FileMode) string {
		must(t, os.Mkdir(at(name), 0o755))
		must(t, os.WriteFile(at(name, "run"), []byte("#!/bin/sh\n"), 0o755))
		must(t, os.Chmod(at(name, "run"), mode))
		must(t, os.Chmod(at(name), dirMode))
		must(t, os.Chown(at(name, "run"), uid, gid))
		return at(name, "run")
	}
	good := make("good", 0, 0, 0o755, 0o755)
	link := func(name, target string) string { must(t, os.Symlink(target, at(name))); return at(name) }
	dir := make("open-dir", 0, 0, 0o777, 0o755)
	for path, want := range map[string]string{
		good:                                             "",
		make("rootgroup", 0, 0, 0o775, 0o775):            "",
		make("group", 0, 65534, 0o755, 0o775):            " may be written to by group 65534 (chmod g-w)",
		make("world", 0, 0, 0o755, 0o757):                " may be written to by everybody (chmod o-w)",
		make("foreign", 65534, 0, 0o755, 0o755):          " belongs to user 65534, who could replace it (chown root, or give the action that user)",
		make("agents", 1234, 0, 0o755, 0o755):            "",
		make("sticky", 0, 0, 0o777|os.ModeSticky, 0o755): "",
		dir:                             " may be written to by everybody (chmod o-w)",
		link("to-good", good):           "",
		link("relative", "good/run"):    "",
		link("to-open", dir):            " may be written to by everybody (chmod o-w)",
		link("loop", at("loop")):        ": too many symbolic links",
		at("good", "..", "good", "run"): "",
		at("missing", "run"):            "", // the attempt to start it gives a better error
	} {
		got := ""
		if err := checkTrusted(path, 1234); err != nil {
			got = err.Error()
		}
		if want == "" && got != "" || !strings.HasSuffix(got, want) {
			t.Errorf("%s: %q, want ...%q", path, got, want)
		}
	}
	r := newTestRunner(t, Options{})
	o := runOne(t, r, Action{Exec: []string{dir}})
	if want := fmt.Sprintf("exec %s: not run: %s may be written to by everybody (chmod o-w)", dir, at("open-dir")); o.Err != want {
		t.Errorf("got  %s\nwant %s", o.Err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
