package control

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// TestLock: the client is told each change of its lock. The agent is told the client's
// user id, the EndLock request, and that the client hung up.
func TestLock(t *testing.T) {
	gone := make(chan struct{})
	a := steady()
	a.lock = func(ctx context.Context, r LockRequest, uid uint32, tell func(LockLevel)) error {
		defer close(gone)
		if r.Name != "db" || time.Duration(r.Keep) != time.Minute || r.Until != "true" || uid != uint32(os.Geteuid()) {
			return errors.New("not what the client asked")
		}
		tell(LockLevel{ID: 5, Waiting: "held by\npbx2"})
		tell(LockLevel{ID: 5, Node: "pbx1", Epoch: 7, Until: 123456789012345, Margin: time.Second})
		<-ctx.Done()
		return nil
	}
	ended := make(chan LockEnd, 1)
	a.unlock = func(_ context.Context, e LockEnd) error { ended <- e; return nil }
	_, _, dir := start(t, a)
	c := NewClient(dir)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	ctx, hangUp := context.WithCancel(ctx)
	var levels []LockLevel
	err := c.Lock(ctx, LockRequest{Name: "db", Keep: Millis(time.Minute), Until: "true"}, func(l LockLevel) {
		if levels = append(levels, l); len(levels) == 2 {
			if err := c.EndLock(ctx, LockEnd{ID: l.ID, Keep: true}); err != nil {
				t.Error(err)
			}
			hangUp()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	want := []LockLevel{{ID: 5, Waiting: "held by pbx2"}, {ID: 5, Node: "pbx1", Epoch: 7, Until: 123456789012345, Margin: time.Second}}
	if len(levels) != 2 || levels[0] != want[0] || levels[1] != want[1] {
		t.Errorf("told %+v", levels)
	}
	if e := <-ended; e != (LockEnd{5, true}) {
		t.Errorf("ended %+v", e)
	}
	select {
	case <-gone:
	case <-time.After(deadline):
		t.Error("the agent never hears that the client is gone")
	}
}

// TestLockRefused: invalid requests are refused before the agent is asked.
func TestLockRefused(t *testing.T) {
	a := steady()
	a.lock = func(context.Context, LockRequest, uint32, func(LockLevel)) error {
		return errors.New("lock db: the agent's word")
	}
	a.unlock = func(context.Context, LockEnd) error { return errors.New("lock: no client 9 here") }
	_, _, dir := start(t, a)
	c := NewClient(dir)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	for _, bad := range []struct {
		r    LockRequest
		want string
	}{
		{LockRequest{}, "lock name of 0 bytes"},
		{LockRequest{Name: strings.Repeat("a", 64)}, "lock name of 64 bytes"},
		{LockRequest{Name: "-a"}, "letters, digits"},
		{LockRequest{Name: "a/b"}, "letters, digits"},
		{LockRequest{Name: "ä"}, "letters, digits"},
		{LockRequest{Name: "db", Keep: Millis(time.Minute)}, "go together"},
		{LockRequest{Name: "db", Until: "true"}, "go together"},
		{LockRequest{Name: "db", Keep: Millis(25 * time.Hour), Until: "true"}, "not possible"},
		{LockRequest{Name: "db", Keep: Millis(-time.Hour), Until: "true"}, "not possible"},
		{LockRequest{Name: "db", Keep: Millis(time.Minute), Until: strings.Repeat("x", 2049)}, "too long"},
		{LockRequest{Name: "db"}, "the agent's word"},
	} {
		if err := c.Lock(ctx, bad.r, func(LockLevel) {}); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%+v: %v, want %q", bad.r, err, bad.want)
		}
		// The same request from a client that does not check it.
		raw, err := encode(bad.r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := c.roundTrip(ctx, http.MethodPost, pathLock, nil, raw)
		if err == nil {
			body.Close()
		}
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("unchecked %+v: %v, want %q", bad.r, err, bad.want)
		}
	}
	if err := c.EndLock(ctx, LockEnd{ID: 9}); err == nil || !strings.Contains(err.Error(), "no client 9") {
		t.Error(err)
	}
	for _, raw := range []string{"", "{", `{"name":"db","nope":1}`, `{"name":"` + strings.Repeat("x", maxLockBody) + `"}`} {
		if body, err := c.roundTrip(ctx, http.MethodPost, pathLock, nil, []byte(raw)); err == nil {
			body.Close()
			t.Errorf("%.40q is taken", raw)
		}
	}
}

// TestTooManyLocks: waiting lock clients leave connections for everybody else.
func TestTooManyLocks(t *testing.T) {
	a := steady()
	a.lock = func(ctx context.Context, _ LockRequest, _ uint32, tell func(LockLevel)) error {
		tell(LockLevel{ID: 1, Waiting: "held by pbx2"})
		<-ctx.Done()
		return nil
	}
	_, _, dir := start(t, a)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	waiting, ended := make(chan struct{}, maxLockWaits), make(chan error, maxLockWaits)
	for range maxLockWaits {
		go func() {
			ended <- NewClient(dir).Lock(ctx, LockRequest{Name: "db"}, func(LockLevel) { waiting <- struct{}{} })
		}()
	}
	for range maxLockWaits {
		select {
		case <-waiting:
		case <-ctx.Done():
			t.Fatal("not all of them wait")
		}
	}
	if err := NewClient(dir).Lock(ctx, LockRequest{Name: "db"}, func(LockLevel) {}); err == nil || !strings.Contains(err.Error(), "32 clients") {
		t.Errorf("one more: %v", err)
	}
	if _, err := NewClient(dir).Status(ctx); err != nil {
		t.Errorf("status beside them: %v", err)
	}
	cancel()
	for range maxLockWaits {
		<-ended
	}
}

func TestLocksInStatus(t *testing.T) {
	st := example()
	st.Locks = []LockStatus{{Name: "cdr", Holder: "pbx1", Epoch: 4, Waiting: 2}, {Name: "db", KeptFor: "pbx2", KeptForMillis: Millis(14 * time.Minute)}}
	var b bytes.Buffer
	if err := WriteStatus(&b, st, Look{Location: time.UTC}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"LOCK  HOLDER  EPOCH  SINCE  WAITING HERE  KEPT\n", "cdr   pbx1    4      -      2\n", "db    -       -      -      0             for pbx2, 14m0s at most\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
