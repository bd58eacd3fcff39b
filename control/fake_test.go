package control

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline is generous because other builds share the machine.
const deadline = 20 * time.Second

// fake is an agent that answers with whatever the test sets.
type fake struct {
	status func(context.Context) (Status, error)
	plan   func(context.Context, []string) (Plan, error)
	do     func(context.Context, Command) (string, error)
	flush  func(context.Context) ([]FlushResult, error)
	drain  func(context.Context, WaitCalls, func(CallsLeft)) (string, error)
	rotate func(context.Context, []string, func(KeyStep)) (string, error)
	lock   func(context.Context, LockRequest, uint32, func(LockLevel)) error
	unlock func(context.Context, LockEnd) error
}

func (f fake) Status(ctx context.Context) (Status, error) { return f.status(ctx) }
func (f fake) Plan(ctx context.Context, without []string) (Plan, error) {
	return f.plan(ctx, without)
}
func (f fake) Flush(ctx context.Context) ([]FlushResult, error) { return f.flush(ctx) }
func (f fake) DrainQuietly(ctx context.Context, w WaitCalls, progress func(CallsLeft)) (string, error) {
	return f.drain(ctx, w, progress)
}
func (f fake) RotateKey(ctx context.Context, without []string, progress func(KeyStep)) (string, error) {
	return f.rotate(ctx, without, progress)
}
func (f fake) Do(ctx context.Context, cmd Command) (string, error) { return f.do(ctx, cmd) }

func (f fake) Lock(ctx context.Context, r LockRequest, uid uint32, tell func(LockLevel)) error {
	return f.lock(ctx, r, uid, tell)
}
func (f fake) EndLock(ctx context.Context, end LockEnd) error { return f.unlock(ctx, end) }

// hang blocks until ctx ends, like a call into a stuck loop.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// steady answers every request with the design's example.
func steady() fake {
	return fake{
		status: func(context.Context) (Status, error) { return example(), nil },
		plan: func(_ context.Context, without []string) (Plan, error) {
			return Plan{Without: without, VIPs: []PlannedVIP{{Name: "vip1", Holder: "pbx1", Would: "pbx1", Reason: "pbx1: holds it"}}}, nil
		},
		flush: func(context.Context) ([]FlushResult, error) {
			return []FlushResult{{Node: "pbx1", Action: "memcached 127.0.0.1:11211", OK: true, Took: Millis(1200 * time.Microsecond)},
				{Node: "pbx2", Text: "not heard"}}, nil
		},
		do: func(_ context.Context, cmd Command) (string, error) {
			if cmd.Node == "pbx9" {
				return "", errors.New("move vip1 to pbx9: no such node (sipalive status lists them)")
			}
			return cmd.String() + ": done", nil
		},
	}
}

// start serves the agent on its own socket until the test ends.
func start(t *testing.T, agent Agent, change ...func(*Server)) (*Server, *Journal, string) {
	t.Helper()
	dir, journal := t.TempDir(), NewJournal(DefaultEvents)
	s := NewServer(agent, journal)
	for _, c := range change {
		c(s)
	}
	stop := serve(t, s, dir)
	t.Cleanup(stop)
	return s, journal, dir
}

// serve runs s on the socket in dir. stop ends it and waits.
func serve(t *testing.T, s *Server, dir string) (stop func()) {
	t.Helper()
	l, warning, err := Listen(dir, "")
	if err != nil || warning != "" {
		t.Fatalf("Listen: warning %q, error %v", warning, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	ended := false
	return func() {
		if ended {
			return
		}
		ended = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(deadline):
			t.Error("Serve did not end with its context")
		}
	}
}

func ctxFor(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, deadline)
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; go test -update rewrites it):\n%s", path, diff)
	}
}

func at(clock string) time.Time {
	t, err := time.Parse("15:04:05.000", clock)
	if err != nil {
		panic(err)
	}
	return time.Date(2026, 1, 2, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// example is the state in the design's example of status --json.
func example() Status {
	return Status{
		Cluster: "pbx-dc1", Node: "pbx1", Quorum: true, Fence: "bpf+lifetime",
		Nodes: []NodeStatus{{Name: "pbx1", Address: "192.0.2.11", Alive: true, Fit: true, SIP: "up", Holds: []string{"vip1"}}},
		VIPs: []VIPStatus{{
			Name: "vip1", Address: "192.0.2.101", Holder: "pbx1", Epoch: 7, Since: Since{at("03:04:05.678")},
			State: "held", Router: "proven", Verified: true, Reason: "pbx1: first in prefer",
		}},
	}
}

// troubled is a status with something unusual for every line that can be shown.
func troubled() Status {
	st := example()
	st.Quorum, st.Fence, st.Quiet, st.AllUnfit = false, "none", true, true
	st.FenceWeak, st.FenceMeans = true, "the VIP of a frozen or killed agent stays until somebody removes it"
	st.Waiting = "pbx3 runs another list"
	st.Nodes = []NodeStatus{
		{Name: "pbx1", Address: "192.0.2.11", Alive: true, SIP: "down", Why: "port refused", HeldDown: true, Holds: []string{"vip1", "cdr"}},
		{Name: "pbx2", Address: "192.0.2.12", SIP: "unknown", Why: "silent"},
		{Name: "büro-3", Address: "2001:db8::13", Alive: true, Fit: true, SIP: "up", Drained: true, ConfigDiffers: true},
	}
	st.VIPs[0].Verified, st.VIPs[0].AwayFrom = false, "pbx2"
	st.VIPs = append(st.VIPs,
		VIPStatus{Name: "vip2", Address: "192.0.2.102", Epoch: 12, State: "vacant", Router: "unknown", Reason: "no majority"},
		VIPStatus{Name: "vip3", Address: "2001:db8::103", Holder: "pbx1", Epoch: 1, Since: Since{at("03:04:06.000")}, State: "moving", Router: "unknown", Unchecked: true, Reason: "to büro-3:\x1b[31m red\nline"},
	)
	st.Roles = []RoleStatus{
		{Name: "cdr", Holder: "pbx1", Epoch: 3, Since: Since{at("03:04:05.000")}, State: "held", Reason: "pbx1: spare, as preferred"},
		{Name: "billing", State: "vacant"},
		{Name: "fax", Holder: "pbx1", Epoch: 2, State: "held", Reason: "pbx1: next in prefer", AwayFrom: "pbx3"},
	}
	return st
}
