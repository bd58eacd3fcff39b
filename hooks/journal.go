package hooks

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Journal is a directory, on a tmpfs, with one small file per VIP: which epochs are
// known, what this node took, and which chains have not ended. If an agent dies in the
// middle of an action, the next agent reads here what it has to run again. Nothing is
// synced: a power cut takes the tmpfs, and with it everything that ran.
type Journal struct {
	dir, boot string
	known     bool // an earlier agent of this boot kept this journal too
	records   map[string]record
}

// Taken is the newest epoch whose acquire chain began here and whose release chain has
// not ended.
type Taken struct {
	Epoch    uint64 `json:"epoch"`
	Acquired bool   `json:"acquired,omitempty"` // the acquire chain has ended
	Event    Event  `json:"event"`              // what its actions were told
}

func (t *Taken) is(epoch uint64) bool { return t != nil && t.Epoch == epoch }

// record is the contents of one file.
type record struct {
	Boot   string     `json:"boot"` // a record of another boot does not count
	VIP    string     `json:"vip"`
	Epochs ledger     `json:"epochs"`
	Taken  *Taken     `json:"taken,omitempty"`
	Left   []*remnant `json:"left,omitempty"`
}

// remnant is a chain that has not ended.
type remnant struct {
	Phase  Phase  `json:"phase"`
	Epoch  uint64 `json:"epoch"`
	Event  Event  `json:"event"`
	Digest uint64 `json:"digest"` // of the chain's actions; if they have changed, all are run
	Next   int    `json:"next"`   // index of the first action that has not ended
}

const (
	recordSuffix = ".json"
	bootName     = "boot" // file with the boot's id: since that boot everything was recorded
)

// OpenJournal creates the directory if it is missing and reads what an earlier agent of
// the same boot has left. A file that cannot be understood does not count: its VIP starts
// without a record.
func OpenJournal(dir, boot string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	j := &Journal{dir: dir, boot: boot, records: map[string]record{}}
	kept, err := os.ReadFile(filepath.Join(dir, bootName))
	if j.known = err == nil && string(kept) == boot; !j.known {
		if err := os.WriteFile(filepath.Join(dir, bootName), []byte(boot), 0o600); err != nil {
			return nil, err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordSuffix) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		var rec record
		if json.Unmarshal(data, &rec) == nil && rec.Boot == boot && fileName(rec.VIP) == e.Name() {
			j.records[rec.VIP] = rec
		}
	}
	return j, nil
}

func fileName(vip string) string { return url.PathEscape(vip) + recordSuffix }

// found returns the records that were read.
func (j *Journal) found() map[string]record {
	if j == nil {
		return nil
	}
	return j.records
}

func (j *Journal) keptBefore() bool { return j != nil && j.known }

// store replaces one VIP's record in one step.
func (j *Journal) store(rec record) error {
	rec.Boot = j.boot
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	path := filepath.Join(j.dir, fileName(rec.VIP))
	err = os.WriteFile(path+".new", data, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("journal of the actions of %s: %w", rec.VIP, err)
	}
	return nil
}

// persist writes a lane's record to the journal.
func (r *Runner) persist(l *lane) {
	if r.opts.Journal == nil || strings.HasPrefix(l.vip, "-") {
		return
	}
	l.disk.Lock()
	defer l.disk.Unlock()
	r.mu.Lock()
	rec := record{VIP: l.vip, Epochs: l.ledger, Taken: l.taken, Left: append([]*remnant(nil), l.left...)}
	for _, c := range l.chains() {
		rec.Left = append(rec.Left, &remnant{Phase: c.phase, Epoch: c.epoch, Event: c.event, Digest: c.digest, Next: c.next})
	}
	r.mu.Unlock()
	if err := r.opts.Journal.store(rec); err != nil {
		r.opts.JournalError(err)
	}
}

// resume lets a chain that an earlier agent began continue where that agent stopped. The
// caller holds the mutex.
func (l *lane) resume(c *chain) {
	for i, m := range l.left {
		if m.Phase != c.phase || m.Epoch != c.epoch {
			continue
		}
		if m.Digest == digest(c.actions) {
			c.next = min(m.Next, len(c.actions))
		}
		l.left = append(l.left[:i:i], l.left[i+1:]...)
		return
	}
}

// Owed is a chain that an earlier agent should have run to its end.
type Owed struct {
	Phase Phase
	Epoch uint64
	Event Event
}

// Resume returns what an earlier agent has left undone of a VIP, and forgets what this
// agent will not run. Call it once, before anything is started. held is the epoch under
// which this node still holds the VIP, 0 if it does not. Start every chain in owed, in
// order. before is what the actions of the takeover still held were told, nil if unknown.
//
// If the VIP is still held, owed has the acquire chain, unless it had ended. If the agent
// died before its first record, that chain's event is empty; if no journal was kept
// before, the chain is not owed. If the VIP had been taken and is no longer held, owed
// has the release chain. In all cases it has every retire, failed and unreachable chain
// that had begun, but never a prepare chain, which the holder asks for again.
func (r *Runner) Resume(vip string, held uint64) (owed []Owed, before *Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lane(vip)
	t := l.taken
	switch {
	case held != 0 && t.is(held):
		before = &t.Event
		if !t.Acquired {
			owed = append(owed, Owed{Acquire, held, t.Event})
		}
	case held != 0 && r.opts.Journal.keptBefore():
		owed = append(owed, Owed{Phase: Acquire, Epoch: held})
	case held == 0 && t != nil:
		owed = append(owed, Owed{Release, t.Epoch, l.released(t)})
	}
	for _, m := range l.left {
		if m.Phase == Retire || m.Phase == Failed || m.Phase == Unreachable {
			owed = append(owed, Owed{m.Phase, m.Epoch, m.Event})
		}
	}
	l.left = slices.DeleteFunc(l.left, func(m *remnant) bool { // Start would never find these
		return !slices.ContainsFunc(owed, func(o Owed) bool { return o.Phase == m.Phase && o.Epoch == m.Epoch })
	})
	return owed, before
}

// released returns what the release actions are told of a VIP that an earlier agent had
// taken. If they had begun, that is what they were told. Otherwise it is that the VIP is
// lost by a crash: the cause of its takeover no longer counts.
func (l *lane) released(t *Taken) Event {
	for _, m := range l.left {
		if m.Phase == Release && m.Epoch == t.Epoch {
			return m.Event
		}
	}
	ev := t.Event
	ev.Cause, ev.Reason = Crash, string(Crash)
	return ev
}

// digest distinguishes two chains by their actions.
func digest(actions []Action) uint64 {
	h := fnv.New64a()
	if err := json.NewEncoder(h).Encode(actions); err != nil {
		panic("hooks: strings and numbers always marshal: " + err.Error())
	}
	return h.Sum64()
}
