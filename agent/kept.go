package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"sipalive/control"
	"sipalive/elect"
)

// keptLock is a lock that is kept for this node over its reboot. It is kept until the
// shell line Until succeeds here after the reboot, or until Keep has passed. It is stored
// in the state directory.
type keptLock struct {
	Name     string         `json:"name"`
	Epoch    elect.Epoch    `json:"epoch"`
	Keep     time.Duration  `json:"keep"`
	Until    string         `json:"until"`
	User     string         `json:"user"`     // the user that runs Until: the one who asked for the lock
	Instance elect.Instance `json:"instance"` // of the boot in which the lock was obtained

	recorded bool   // on disk
	refused  string // why it is not recorded, after a failed try
	parted   bool   // its client is gone
}

const (
	keptName     = "kept-locks.json"
	untilEvery   = 2 * time.Second
	untilTimeout = 30 * time.Second
)

func userName(uid uint32) (string, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return "", fmt.Errorf("user %d: no such user on this node, and as nobody else it may run", uid)
	}
	return u.Username, nil
}

// StoreKept replaces the record of the locks that are kept for this node.
func (d *Directory) StoreKept(all []*keptLock) error {
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return replace(filepath.Join(d.state, keptName), append(data, '\n'), true)
}

// RestoreKept reads the record of StoreKept. If the record is damaged, nothing is kept
// here. The voters still keep the locks for as long as was asked.
func (d *Directory) RestoreKept() (all []*keptLock, err error) {
	path := filepath.Join(d.state, keptName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return all, nil
}

// ready reports whether a lock that outlives the boot may be used. First a majority of
// the voters, and this node's own disk, have to know that it is kept.
func (k *locks) ready(q *lockQueue, c *lockClient, l elect.HeldLock) bool {
	switch {
	case c.kept != nil:
		return c.kept.recorded
	case l.Kept:
		c.kept = &keptLock{Name: q.name, Epoch: l.Epoch, Keep: time.Duration(c.req.Keep), Until: c.req.Until, User: c.user, Instance: k.a.Machine.Instance()}
		k.kept[q.name] = c.kept
		k.record(c.kept)
	}
	return false
}

// record writes the kept locks to disk, off the loop, one record after the other. If r is
// not nil, it may be used once its record is written.
func (k *locks) record(r *keptLock) {
	all := slices.Collect(maps.Values(k.kept))
	copies := make([]*keptLock, len(all))
	for i, r := range all {
		c := *r
		copies[i] = &c
	}
	before, written := k.writing, make(chan struct{})
	k.writing = written
	go func() {
		if before != nil {
			<-before
		}
		err := k.a.Directory.StoreKept(copies)
		close(written)
		if err != nil {
			k.a.recorder.warn("store the locks kept for this node", err)
		}
		k.later(func() {
			switch {
			case err != nil:
				k.recordLater(r, written, err)
			case r != nil:
				r.recorded = true
			}
		})
	}()
}

// recordLater tries again what the disk refused, unless the record is out of date by
// then.
func (k *locks) recordLater(r *keptLock, written chan struct{}, err error) {
	if r != nil {
		r.refused = err.Error()
	}
	time.AfterFunc(durableRetry, func() {
		k.later(func() {
			if r != nil && k.kept[r.Name] == r || r == nil && k.writing == written {
				k.record(r)
			}
		})
	})
}

// parted notes that the client of a kept lock is gone, and whether the lock stays kept.
func (k *locks) parted(r *keptLock, keep bool) {
	if !keep {
		k.forget(r)
		return
	}
	if r.parted {
		return
	}
	r.parted = true
	if k.watching != nil {
		go k.watch(k.watching, r, false)
	}
}

func (k *locks) forget(r *keptLock) {
	if k.kept[r.Name] == r {
		delete(k.kept, r.Name)
		k.record(nil)
	}
}

// restore takes over the kept locks of an earlier agent. It runs before the loop does.
func (k *locks) restore() {
	all, err := k.a.Directory.RestoreKept()
	if err != nil {
		k.a.recorder.warn("locks kept for this node", err)
	}
	for _, r := range all {
		r.recorded, r.parted = true, true
		k.kept[r.Name] = r
	}
}

// run starts the watch over every kept lock whose client is gone, and waits for the
// agent's end.
func (k *locks) run(ctx context.Context) error {
	err := k.a.ask(ctx, func() {
		k.watching = ctx
		for _, r := range k.kept {
			if r.parted {
				go k.watch(ctx, r, r.Instance != k.a.Machine.Instance())
			}
		}
	})
	if err != nil {
		return nil // the agent is ending already
	}
	<-ctx.Done()
	return nil
}

// watch ends the keep when its time is up. If this node has been rebooted since, watch
// also asks whether the node has recovered, and ends the keep when it has.
func (k *locks) watch(ctx context.Context, r *keptLock, rebooted bool) {
	end := time.NewTimer(r.Keep)
	defer end.Stop()
	how := fmt.Sprintf("after %s: %s has not succeeded", r.Keep, r.Until)
	for last := ""; ; {
		if rebooted {
			out, err := k.a.Runner.Command(ctx, r.User, r.Until, []string{"SIPALIVE_NODE=" + k.a.Self.Name, "SIPALIVE_LOCK=" + r.Name}, untilTimeout)
			if err == nil {
				how = "this node has recovered: " + r.Until
				break
			}
			if said := err.Error() + " " + out; said != last && ctx.Err() == nil {
				last = said
				k.a.recorder.lock(r.Name, r.Epoch, "kept, not recovered yet: "+said)
			}
		}
		var again <-chan time.Time
		if rebooted {
			again = time.After(untilEvery)
		}
		select {
		case <-again:
			continue
		case <-end.C:
		case <-ctx.Done():
			return
		}
		break
	}
	k.a.recorder.lock(r.Name, r.Epoch, "kept no longer: "+how)
	_ = k.a.ask(ctx, func() {
		k.forget(r)
		k.a.step(elect.KeepOver{VIP: elect.LockID(r.Name), Epoch: r.Epoch})
		if q := k.byID[elect.LockID(r.Name)]; q != nil {
			k.next(q)
			k.explain(q)
		}
	})
}

// lock records an event of a lock.
func (r *recorder) lock(name string, e elect.Epoch, text string) {
	r.post(func() {
		r.a.Log.Info(control.KindLock, "node", r.a.Self.Name, "vip", name, "epoch", uint64(e), "reason", text)
		r.a.Journal.Add(control.Event{Time: control.Stamp{Time: time.Now()}, Node: r.a.Self.Name, Kind: control.KindLock, VIP: name, Epoch: uint64(e), Text: text})
	})
}

// locked records the transitions of a lock in which this node takes part.
func (r *recorder) locked(name string, t elect.Transition) {
	switch t.Kind {
	case elect.Acquired:
		r.lock(name, t.Epoch, "obtained by a client of this node")
	case elect.Lapsed:
		r.lock(name, t.Epoch, "the lease ended")
	case elect.LetGo:
		r.lock(name, t.Epoch, "released")
	}
}
