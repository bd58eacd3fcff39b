package agent

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sipalive/arp"
	"sipalive/config"
	"sipalive/control"
	"sipalive/elect"
)

// TestKeptOnceTheDiskTakesIt: a lock that is to outlive the boot waits for this node's
// disk and says so. It goes on once the disk takes the record. A lock that ended
// meanwhile is not kept.
func TestKeptOnceTheDiskTakesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := config.Parse("home.toml", []byte(home))
		if err != nil {
			t.Fatal(err)
		}
		machine, err := elect.New(ElectConfig(c, c.Node("pbx3"), arp.RelayLink{}), elect.Restored{}, 7, 1, rand.New(rand.NewPCG(1, 2)))
		if err != nil {
			t.Fatal(err)
		}
		a := &Agent{Parts: Parts{Config: c, Self: c.Node("pbx3"), Machine: machine, Directory: openDirectory(t, t.TempDir())}, queries: make(chan func()), ended: make(chan struct{})}
		a.inForce.Store(&settled{config: c, names: newNames(c, nil)})
		a.recorder, a.locks = newRecorder(a), newLocks(a)
		defer close(a.ended)
		k := a.locks
		pass := func(d time.Duration) { // runs queries as the loop does
			for end := time.After(d); ; {
				select {
				case q := <-a.queries:
					q()
				case <-end:
					return
				}
			}
		}
		disk := func(there bool) {
			t.Helper()
			from, to := a.Directory.state, a.Directory.state+".away"
			if there {
				from, to = to, from
			}
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		kept := func() (names []string) {
			t.Helper()
			all, err := a.Directory.RestoreKept()
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range all {
				names = append(names, r.Name)
			}
			return names
		}
		disk(false)
		client := func(name string) (*lockQueue, *lockClient) {
			q, c := k.queue(elect.LockID(name), name), &lockClient{req: control.LockRequest{Name: name}, wake: make(chan struct{}, 1)}
			q.asking = c
			k.ready(q, c, elect.HeldLock{Kept: true})
			return q, c
		}
		_, leaves := client("backup")
		q, stays := client("upgrade")
		k.forget(leaves.kept)
		pass(3 * durableRetry)
		k.explain(q)
		if why := stays.level.Waiting; !strings.HasPrefix(why, "this node cannot record that it is kept: ") || k.ready(q, stays, elect.HeldLock{}) {
			t.Errorf("without a disk: ready %t, waiting: %q", stays.kept.recorded, why)
		}
		disk(true)
		pass(2 * durableRetry)
		if names := kept(); !k.ready(q, stays, elect.HeldLock{}) || !slices.Equal(names, []string{"upgrade"}) {
			t.Errorf("with a disk: ready %t, on it %v", stays.kept.recorded, names)
		}
		disk(false)
		k.forget(stays.kept)
		pass(durableRetry / 2)
		disk(true)
		if before := kept(); len(before) != 1 {
			t.Fatalf("forgotten on a disk that was away: on it %v", before)
		}
		pass(2 * durableRetry)
		if names := kept(); len(names) != 0 {
			t.Errorf("forgotten: on it %v", names)
		}
	})
}
