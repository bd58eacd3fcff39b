package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"sipalive/elect"
)

// leaseFile is a memory-mapped file in the runtime directory. It contains the end of
// every lease this node holds, or of every grant it gave. It changes with every renewal,
// so a change must cost a store to memory and no system call. It outlives the agent. If
// the end of a lease is still ahead, the next agent goes on asking with the same epoch
// (§4.5).
type leaseFile struct {
	mem   []byte
	slots map[elect.VIPID]int
}

const (
	leaseSlot   = 128
	leaseIDRoom = leaseSlot - 32 // id length and text; then boot hash, epoch, since, until
)

// OpenLeases maps the file for these VIPs and roles. It returns the leases that it finds
// for them, whether or not they have ended.
func (d *Directory) OpenLeases(ids []elect.VIPID) ([]elect.HeldVIP, error) {
	return d.openLeaseFile(leaseName, ids, &d.leases)
}

// OpenGrants does the same for the ends of what this node granted as a voter.
func (d *Directory) OpenGrants(ids []elect.VIPID) (ends []elect.GrantEnd, err error) {
	found, err := d.openLeaseFile(grantName, ids, &d.grants)
	for _, g := range found {
		ends = append(ends, elect.GrantEnd{VIP: g.VIP, Epoch: g.Epoch, Until: g.Until})
	}
	return ends, err
}

// openLeaseFile maps the file called name, and replaces the mapping from before a reload.
func (d *Directory) openLeaseFile(name string, ids []elect.VIPID, in **leaseFile) ([]elect.HeldVIP, error) {
	path := filepath.Join(d.run, name)
	found := readLeases(path, bootNumber(d.boot))
	size := max(len(ids), 1) * leaseSlot
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	// Written, not truncated: a full tmpfs must refuse here and not cause a fault later.
	if _, err := f.Write(make([]byte, size)); err != nil {
		return nil, fmt.Errorf("make room in %s: %w", tmp, err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", tmp, err)
	}
	l := &leaseFile{mem: mem, slots: map[elect.VIPID]int{}}
	var held []elect.HeldVIP
	for i, id := range ids {
		if len(id) >= leaseIDRoom {
			return nil, fmt.Errorf("lease of %s: name longer than %d bytes", id, leaseIDRoom-1)
		}
		l.slots[id] = i * leaseSlot
		s := l.slot(id)
		s[0] = byte(len(id))
		copy(s[1:leaseIDRoom], id)
		binary.NativeEndian.PutUint64(s[leaseIDRoom:], bootNumber(d.boot))
		if h, ok := found[id]; ok {
			held = append(held, h)
			l.put(id, h.Epoch, h.Since, h.Until)
		}
	}
	if err := os.Rename(tmp, path); err != nil {
		return nil, errors.Join(err, unix.Munmap(mem))
	}
	if before := *in; before != nil {
		_ = unix.Munmap(before.mem)
	}
	*in = l
	return held, nil
}

// LeftBound returns the VIPs and roles that have a lease on record and are not among ids.
// An agent with another configuration held them, and nobody looks after them now.
func (d *Directory) LeftBound(ids []elect.VIPID) (left []elect.VIPID) {
	for id := range readLeases(filepath.Join(d.run, leaseName), bootNumber(d.boot)) {
		if !slices.Contains(ids, id) {
			left = append(left, id)
		}
	}
	return left
}

// slot returns the slot of a VIP. Everything that the machine may want has one. That
// includes what has left the configuration, because the names keep it (see newNames).
func (l *leaseFile) slot(id elect.VIPID) []byte { o := l.slots[id]; return l.mem[o : o+leaseSlot] }

// put records a lease. A reader after a crash must never find an end that belongs to
// another epoch, so the end is cleared first and written last.
func (l *leaseFile) put(id elect.VIPID, epoch elect.Epoch, now, until elect.Instant) {
	s := l.slot(id)
	if atomic.LoadUint64(word(s, wordEpoch)) != uint64(epoch) {
		l.putEpoch(s, epoch, now)
	}
	atomic.StoreUint64(word(s, wordUntil), uint64(until))
}

// end records that nothing is held. It clears the epoch too, so the next lease counts as
// held from its own beginning.
func (l *leaseFile) end(id elect.VIPID) { l.putEpoch(l.slot(id), 0, 0) }

func (l *leaseFile) putEpoch(s []byte, epoch elect.Epoch, since elect.Instant) {
	atomic.StoreUint64(word(s, wordUntil), 0)
	atomic.StoreUint64(word(s, wordEpoch), uint64(epoch))
	atomic.StoreUint64(word(s, wordSince), uint64(since))
}

// The words that follow a slot's name.
const (
	wordBoot = iota
	wordEpoch
	wordSince
	wordUntil
)

func word(slot []byte, i int) *uint64 { return (*uint64)(unsafe.Pointer(&slot[leaseIDRoom+8*i])) }

func readLeases(path string, boot uint64) map[elect.VIPID]elect.HeldVIP {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil // no file, or no readable one: there is nothing to go on asking for
	}
	out := map[elect.VIPID]elect.HeldVIP{}
	for ; len(data) >= leaseSlot; data = data[leaseSlot:] {
		n := int(data[0])
		read := func(i int) uint64 { return binary.NativeEndian.Uint64(data[leaseIDRoom+8*i:]) }
		if n == 0 || n >= leaseIDRoom || read(wordBoot) != boot || read(wordUntil) == 0 {
			continue
		}
		id := elect.VIPID(data[1 : 1+n])
		out[id] = elect.HeldVIP{VIP: id, Epoch: elect.Epoch(read(wordEpoch)), Since: elect.Instant(read(wordSince)), Until: elect.Instant(read(wordUntil))}
	}
	return out
}

// bootNumber hashes the boot id to a number, enough to tell two boots apart.
func bootNumber(id string) uint64 {
	var n uint64
	for _, c := range []byte(id) {
		n = n*1099511628211 ^ uint64(c)
	}
	return n
}
