package elect_test

import (
	"testing"
	"time"

	"sipalive/elect"
)

var db = elect.LockID("db")

// lockAsked returns the voter's answer to an ask for a lock.
func (b *bench) lockAsked(from elect.Node, inst elect.Instance, e elect.Epoch) elect.Refusal {
	b.t.Helper()
	eff := b.hear(from, inst, elect.Ask{Lists: elect.Lists{File: abc, Active: abc}, Lease: time.Second, Items: []elect.AskItem{{VIP: db, Epoch: e}}})
	for _, o := range eff.Send {
		if a, ok := o.Msg.(elect.Answer); ok {
			return a.Items[0].Refusal
		}
	}
	b.t.Fatal("no answer")
	return 0
}

// saysKept reports whether this voter says that it keeps the lock.
func (b *bench) saysKept(from elect.Node, inst elect.Instance, k elect.Keep) bool {
	for _, o := range b.hear(from, inst, k).Send {
		if said, ok := o.Msg.(elect.Kept); ok && o.To == from && said == elect.Kept(k) {
			return true
		}
	}
	return false
}

// A voter keeps a lock that it has granted, and says so once that is on disk. It grants
// the lock to no other node until the time is over or the node that it is kept for says
// so.
func TestVoterKeeps(t *testing.T) {
	b := newBench(t)
	b.beat("a", 11)
	keep := elect.Keep{VIP: db, Epoch: 3, For: time.Minute}
	if b.saysKept("a", 11, keep) || len(b.durable.Kept) > 0 {
		t.Fatal("kept for a node without its grant")
	}
	if r := b.lockAsked("a", 11, 3); r != elect.Granted {
		t.Fatal(r)
	}
	if b.saysKept("a", 11, keep) {
		t.Error("said before it is on disk")
	}
	if !b.saysKept("a", 11, keep) || b.durable.Kept[db].Node != "a" {
		t.Errorf("not kept: %+v", b.durable.Kept)
	}
	b.pass(2 * time.Second) // a's lease is long over
	b.beat("c", 31)
	if r := b.lockAsked("c", 31, 4); r != elect.RefusedHeld {
		t.Errorf("kept for a, c hears %s", r)
	}
	if r := b.lockAsked("a", 12, 4); r != elect.Granted {
		t.Errorf("kept for a, after its reboot it hears %s", r)
	}
	b.pass(2 * time.Second)

	// This voter reboots: the record on disk is all it has.
	b.runtime = nil
	b.start(nil, 22)
	b.pass(1100 * time.Millisecond)
	b.beat("c", 31)
	if r := b.lockAsked("c", 31, 6); r != elect.RefusedHeld {
		t.Errorf("kept for a, c hears %s from a voter that was rebooted", r)
	}
	b.beat("a", 12)
	b.hear("a", 12, elect.Keep{VIP: db, Epoch: 2})
	if r := b.lockAsked("c", 31, 6); r != elect.RefusedHeld {
		t.Errorf("the end of an earlier keep ended this one: %s", r)
	}
	b.hear("a", 12, elect.Keep{VIP: db, Epoch: 3})
	if r := b.lockAsked("c", 31, 6); r != elect.Granted {
		t.Errorf("kept no longer, c hears %s", r)
	}
}

// The holder learns that the lock is kept once a majority has it on disk, the holder's
// own disk included.
func TestKeptByAMajority(t *testing.T) {
	b := newBench(t)
	b.beat("a", 11)
	b.step(elect.LockWanted{VIP: db, Keep: time.Minute})
	level := func() elect.HeldLock {
		t.Helper()
		if len(b.last.Locks) != 1 {
			t.Fatalf("locks %+v", b.last.Locks)
		}
		return b.last.Locks[0]
	}
	answer := func() {
		t.Helper()
		for _, o := range b.last.Send {
			if a, ok := o.Msg.(elect.Ask); ok && o.To == "a" {
				it := a.Items[0]
				b.hear("a", 11, elect.Answer{Re: o.Seq, Prevote: a.Prevote, Items: []elect.AnswerItem{{VIP: it.VIP, Epoch: it.Epoch}}})
				return
			}
		}
		b.pass(time.Millisecond)
	}
	for range 200 {
		answer()
		if level().Hold {
			break
		}
	}
	if !level().Hold {
		t.Fatal("never held")
	}
	e := level().Epoch
	b.pass(50 * time.Millisecond) // its own disk has it by now
	if level().Kept {
		t.Error("kept by this node's disk alone")
	}
	b.hear("a", 11, elect.Kept{VIP: db, Epoch: e, For: time.Minute})
	if !level().Kept {
		t.Error("two of three keep it, and the holder does not know")
	}
}

// A lock that nobody has used for a while is forgotten, but not its epochs.
func TestForgottenLock(t *testing.T) {
	b := newBench(t)
	b.beat("a", 11)
	if r := b.lockAsked("a", 11, 9); r != elect.Granted {
		t.Fatal(r)
	}
	b.hear("a", 11, elect.Release{VIP: db, Holder: "a", Instance: 11, Epoch: 9})
	b.pass(2 * time.Minute)
	if len(b.last.Locks) != 0 {
		t.Errorf("still known: %+v", b.last.Locks)
	}
	b.beat("c", 31)
	if r := b.lockAsked("c", 31, 9); r != elect.RefusedStale {
		t.Errorf("an epoch of a forgotten lock: %s", r)
	}
	if r := b.lockAsked("c", 31, 10); r != elect.Granted {
		t.Errorf("the next epoch: %s", r)
	}
	b.start(nil, 21)
	if _, known := b.durable.Highest[db]; known {
		t.Errorf("each lock's epoch on disk: %v", b.durable.Highest)
	}
}

// Nobody can fill a voter's memory with names.
func TestManyLocks(t *testing.T) {
	b := newBench(t)
	b.beat("a", 11)
	for i := range 2000 {
		id := elect.LockID(string(rune('a'+i%26)) + time.Duration(i).String())
		b.hear("a", 11, elect.Ask{Lists: elect.Lists{File: abc, Active: abc}, Lease: time.Second, Items: []elect.AskItem{{VIP: id, Epoch: 1}}})
	}
	if n := len(b.last.Locks); n == 0 || n > 256 {
		t.Errorf("%d locks known", n)
	}
	b.pass(2 * time.Minute)
	if n := len(b.last.Locks); n != 0 {
		t.Errorf("%d locks known when nobody uses any", n)
	}
}
