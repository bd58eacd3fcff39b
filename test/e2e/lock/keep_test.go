package lock

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// TestKeep reboots a database server under a lock. No other node gets the lock before the
// first one has recovered, though its lease ended long ago, its agent is not there, and
// the agent of another node is restarted.
func TestKeep(t *testing.T) {
	s := start(t)
	ready := s.path("ready")
	first := s.lock(0, append([]string{"db", "--keep", "5m", "--until", "test -e " + ready}, s.critical("sleep 60")...)...)
	s.waitEntered(1)
	others := []*client{s.lock(1, append([]string{"db"}, s.critical("true")...)...), s.lock(2, append([]string{"db"}, s.critical("true")...)...)}

	s.reboot(0, first)
	s.freed()
	s.notEntered(2, 4*lease)
	s.reboot(1, others[0]) // a voter that had promised to keep the lock, and loses its runtime directory
	s.back(1)
	others[0] = s.lock(1, append([]string{"db"}, s.critical("true")...)...)
	s.notEntered(2, 3*lease)

	s.back(0)
	mine := s.lock(0, append([]string{"db"}, s.critical("true")...)...)
	s.await("pbx1 says that it has not recovered", func() error {
		for _, l := range s.status(0).Locks {
			if l.Name == "db" && l.KeptFor == "pbx1" && l.Waiting == 1 {
				return nil
			}
		}
		return fmt.Errorf("%+v", s.status(0).Locks)
	})
	s.notEntered(2, 3*lease)
	s.must(os.WriteFile(ready, nil, 0o644))
	began := time.Now()
	s.waitEntered(2)
	t.Logf("another node's turn %v after this one had recovered (asked every 2s)", time.Since(began).Round(time.Millisecond))
	s.waitEntered(4)
	for _, c := range append(others, mine) {
		if code := c.code(); code != 0 {
			t.Errorf("lock on node %d: exit %d: %s", c.node, code, c.out.String())
		}
	}
	s.risen()
	s.await("nothing is kept", func() error {
		for i := range s.Nodes() {
			for _, l := range s.status(i).Locks {
				if l.KeptFor != "" {
					return fmt.Errorf("%s: %+v", s.Node(i).Name, l)
				}
			}
		}
		return nil
	})
}

// TestKeepEnds: after a command that failed, nothing is kept, and the lock is free at
// once. After a command that succeeded the lock is kept for its time and no longer, even
// if no reboot comes.
func TestKeepEnds(t *testing.T) {
	s := start(t)
	keep := []string{"db", "--keep", "4s", "--until", "true"}
	if c := s.lock(0, append(keep, s.critical("exit 7")...)...); c.code() != 7 {
		t.Fatalf("exit %d: %s", c.code(), c.out.String())
	}
	if c := s.lock(1, append([]string{"db", "--wait", "3s"}, s.critical("true")...)...); c.code() != 0 {
		t.Fatalf("after a command that failed: exit %d: %s", c.code(), c.out.String())
	}
	if c := s.lock(0, append(keep, s.critical("true")...)...); c.code() != 0 {
		t.Fatalf("exit %d: %s", c.code(), c.out.String())
	}
	began := time.Now()
	if c := s.lock(1, append([]string{"db", "--wait", "2s"}, s.critical("true")...)...); c.code() != 124 {
		t.Fatalf("while it is kept: exit %d: %s", c.code(), c.out.String())
	}
	if c := s.lock(1, append([]string{"db"}, s.critical("true")...)...); c.code() != 0 {
		t.Fatalf("exit %d: %s", c.code(), c.out.String())
	}
	took := time.Since(began)
	t.Logf("kept for 4s: free after %v", took.Round(time.Millisecond))
	if took < 3*time.Second {
		t.Errorf("it was kept for 4s, and free after %v", took)
	}
	s.risen()
}
