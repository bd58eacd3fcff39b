package lock

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
)

func (s *site) status(node int) control.Status {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	st, err := s.Client(node).Status(ctx)
	s.must(err)
	return st
}

// notEntered asserts that for this time no n-th command enters.
func (s *site) notEntered(n int, d time.Duration) {
	s.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got := s.entered(); len(got) >= n {
			s.t.Fatalf("entered: %q, and the last one too early", got)
		}
	}
}

// TestTurns: a free lock is obtained at once; a lock that is given back goes to the next
// client waiting.
func TestTurns(t *testing.T) {
	s := start(t)
	var took []time.Duration
	for i := range 15 {
		began := time.Now()
		c := s.lock(i%3, append([]string{fmt.Sprintf("free%d", i)}, s.critical("true")...)...)
		if code := c.code(); code != 0 {
			t.Fatalf("exit %d: %s", code, c.out.String())
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("free lock obtained, command run, client ended: median %v, slowest %v of %d", took[len(took)/2], took[len(took)-1], len(took))
	s.must(os.Truncate(s.path("entered"), 0))

	// Each command records when it came and when it went.
	stamp := fmt.Sprintf("date +%%s%%N >> %s; sleep 0.1; date +%%s%%N >> %[1]s", s.path("stamps"))
	var all []*client
	for i := range 12 {
		all = append(all, s.lock(i%3, append([]string{"turns"}, s.critical(stamp)...)...))
	}
	for _, c := range all {
		if code := c.code(); code != 0 {
			t.Errorf("exit %d: %s", code, c.out.String())
		}
	}
	s.risen()
	text, err := os.ReadFile(s.path("stamps"))
	s.must(err)
	stamps := strings.Fields(string(text))
	took = nil
	for i := 1; i+1 < len(stamps); i += 2 {
		out, _ := strconv.ParseInt(stamps[i], 10, 64)
		in, _ := strconv.ParseInt(stamps[i+1], 10, 64)
		took = append(took, time.Duration(in-out))
	}
	slices.Sort(took)
	t.Logf("from one command's end to the next one's start: median %v, longest %v of %d", took[len(took)/2], took[len(took)-1], len(took))
}

// children returns the ids of a process's children.
func children(pid int) (all []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		text, _ := os.ReadFile(f)
		for _, w := range bytes.Fields(text) {
			n, _ := strconv.Atoi(string(w))
			all = append(all, n)
		}
	}
	return all
}

// guard returns the id of the process that guards a client's command.
func (c *client) guard() int {
	c.s.t.Helper()
	kids := children(c.cmd.Process.Pid)
	if len(kids) != 1 {
		c.s.t.Fatalf("the client has children %v, want its guard", kids)
	}
	return kids[0]
}

// TestKilledInTime: however a holder loses its lock, its command is dead before another
// command runs.
func TestKilledInTime(t *testing.T) {
	s := start(t)
	stubborn := "trap '' TERM; sleep 60 & wait; sleep 60"
	for _, loss := range []struct {
		name          string
		inflict, undo func(node int, c *client)
		within        time.Duration // the command is dead within this time
		code          int           // exit code; 123: the client could report the loss
	}{
		{name: "agent killed", within: lease + lease/2, code: 123,
			inflict: func(node int, _ *client) { s.Agent(node).Kill() },
			undo:    func(node int, _ *client) { s.back(node) }},
		{name: "agent frozen", within: lease + lease/2, code: 123,
			inflict: func(node int, _ *client) { s.must(s.Agent(node).Signal(syscall.SIGSTOP)) },
			undo:    func(node int, _ *client) { s.must(s.Agent(node).Signal(syscall.SIGCONT)) }},
		{name: "node cut off", within: lease + lease/2, code: 123,
			inflict: func(node int, _ *client) { s.must(s.Cut(s.Node(node))) },
			undo:    func(node int, _ *client) { s.must(s.Restore(s.Node(node))) }},
		{name: "client killed", within: lease / 2, code: -1,
			inflict: func(_ int, c *client) { c.kill() }, undo: func(int, *client) {}},
		{name: "client frozen", within: lease + lease/2, code: 123,
			inflict: func(_ int, c *client) { c.signal(syscall.SIGSTOP) },
			undo:    func(_ int, c *client) { c.signal(syscall.SIGCONT) }},
		{name: "guard killed", within: lease / 2, code: 123,
			inflict: func(_ int, c *client) { s.must(syscall.Kill(c.guard(), syscall.SIGKILL)) }, undo: func(int, *client) {}},
		{name: "agent stopped in order", within: lease + lease/2, code: 123,
			inflict: func(node int, _ *client) { s.must(s.Agent(node).Signal(syscall.SIGTERM)) },
			undo:    func(node int, _ *client) { <-s.Agent(node).Done(); s.back(node) }},
	} {
		t.Run(strings.ReplaceAll(loss.name, " ", "_"), func(t *testing.T) {
			outer := s.t
			s.t = t
			defer func() { s.t = outer }()
			s.must(os.RemoveAll(s.path("entered")))
			holder := s.lock(0, append([]string{"work"}, s.critical(stubborn)...)...)
			s.waitEntered(1)
			next := s.lock(1, append([]string{"work"}, s.critical("true")...)...)
			s.await("another one waits", func() error {
				for _, l := range s.status(1).Locks {
					if l.Name == "work" && l.Holder == "pbx1" && l.Waiting == 1 {
						return nil
					}
				}
				return fmt.Errorf("%+v", s.status(1).Locks)
			})
			began := time.Now()
			loss.inflict(0, holder)
			dead := s.freed().Sub(began)
			s.waitEntered(2)
			after := time.Since(began)
			loss.undo(0, holder)
			t.Logf("%s: command dead after %v, the next one runs after %v", loss.name, dead.Round(time.Millisecond), after.Round(time.Millisecond))
			if dead > loss.within {
				t.Errorf("the command was dead after %v only", dead)
			}
			if code := next.code(); code != 0 {
				t.Errorf("the next one: exit %d: %s", code, next.out.String())
			}
			if code := holder.code(); code != loss.code {
				t.Errorf("the holder: exit %d, want %d: %s", code, loss.code, holder.out.String())
			}
			s.risen()
		})
	}
}

// TestNeverTwo: clients on every node want the same lock all the time, while agents,
// clients and nodes die, freeze and are cut off.
func TestNeverTwo(t *testing.T) {
	s := start(t)
	const clients = 2 // per node
	stop := make(chan struct{})
	results := make(chan int, 1000)
	current := make([][]chan *exec.Cmd, 3)
	done := make(chan struct{}, 3*clients)
	for node := range 3 {
		for range clients {
			take := make(chan *exec.Cmd, 1)
			current[node] = append(current[node], take)
			go s.work(node, take, stop, results, done)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 14 {
		node := r.IntN(3)
		before := len(s.entered())
		s.fault(r, node, current[node][r.IntN(clients)])
		s.await("progress after a fault", func() error {
			if n := len(s.entered()); n <= before {
				return fmt.Errorf("still %d", n)
			}
			return nil
		})
	}
	close(stop)
	for range 3 * clients {
		<-done
	}
	codes := map[int]int{}
	for range len(results) {
		codes[<-results]++
	}
	t.Logf("%d commands entered; exit codes %v", len(s.entered()), codes)
	if codes[99] > 0 {
		t.Errorf("%d commands found another one in the critical section", codes[99])
	}
	if codes[0] < 20 {
		t.Errorf("only %d commands ran to their end", codes[0])
	}
	s.risen()
}

// work runs one command after the other, and reports their exit codes.
func (s *site) work(node int, take chan *exec.Cmd, stop chan struct{}, results chan int, done chan struct{}) {
	defer func() { done <- struct{}{} }()
	for {
		select {
		case <-stop:
			return
		default:
		}
		cmd := exec.Command(binary, append([]string{"lock", "work", "--run-dir", s.RunDir(node), "--wait", "5s"}, s.critical("sleep 0.$(($$ % 4))")...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return
		}
		select {
		case take <- cmd:
		default:
			<-take
			take <- cmd
		}
		_ = cmd.Wait()
		code := cmd.ProcessState.ExitCode()
		results <- code
		if code == 3 { // its agent is not there
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// fault inflicts a fault on a node, and undoes it.
func (s *site) fault(r *rand.Rand, node int, take chan *exec.Cmd) {
	s.t.Helper()
	pause := func() { time.Sleep(time.Duration(200+r.IntN(2300)) * time.Millisecond) }
	switch r.IntN(5) {
	case 0:
		s.Agent(node).Kill()
		pause()
		s.must(s.StartAgent(node))
	case 1:
		s.must(s.Agent(node).Signal(syscall.SIGSTOP))
		pause()
		s.must(s.Agent(node).Signal(syscall.SIGCONT))
	case 2:
		s.must(s.Cut(s.Node(node)))
		pause()
		s.must(s.Restore(s.Node(node)))
	case 3:
		select {
		case cmd := <-take:
			take <- cmd
			_ = cmd.Process.Signal([]syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP}[r.IntN(2)])
			pause()
			_ = cmd.Process.Signal(syscall.SIGCONT)
		default:
		}
	case 4:
		s.reboot(node)
		pause()
		s.must(s.StartAgent(node))
	}
}

// TestLeaveTheQueue: a client that is interrupted while it waits no longer blocks
// anybody. A command that is interrupted ends its lock.
func TestLeaveTheQueue(t *testing.T) {
	s := start(t)
	holder := s.lock(0, append([]string{"queue"}, s.critical("sleep 60")...)...)
	s.waitEntered(1)
	impatient := s.lock(1, append([]string{"queue"}, s.critical("true")...)...)
	waiting := func(n int) func() error {
		return func() error {
			got := 0
			for _, l := range s.status(1).Locks {
				if l.Name == "queue" {
					got = l.Waiting
				}
			}
			if got != n {
				return fmt.Errorf("%d clients wait", got)
			}
			return nil
		}
	}
	s.await("a client waits", waiting(1))
	impatient.signal(syscall.SIGINT)
	if code := impatient.code(); code != 128+int(syscall.SIGINT) {
		t.Errorf("interrupted while waiting: exit %d: %s", code, impatient.out.String())
	}
	s.await("nobody waits", waiting(0))
	patient := s.lock(2, append([]string{"queue"}, s.critical("true")...)...)
	holder.signal(syscall.SIGTERM)
	if code := holder.code(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("terminated: exit %d: %s", code, holder.out.String())
	}
	if code := patient.code(); code != 0 {
		t.Errorf("the next one: exit %d: %s", code, patient.out.String())
	}
	if n := len(s.entered()); n != 2 {
		t.Errorf("%d commands entered, want 2", n)
	}
}
