// Package keyring knows which keys seal and open the agents' packets, and how the cluster
// changes them while it runs (§4.11). It is pure: time, randomness, files and the network
// come from outside.
package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	// KeySize is the key size of AES-256, the longest that memberlist takes.
	KeySize = 32
	// MaxKeys bounds a ring that can be rotated. Each rotation that was given up may
	// leave a key behind until the next one has ended.
	MaxKeys = 8
)

// ID names a key without revealing it: the first bytes of the key's SHA-256.
type ID [8]byte

// IDOf returns a key's ID.
func IDOf(key []byte) ID {
	sum := sha256.Sum256(key)
	return ID(sum[:8])
}

// String returns the form that people see: the first four bytes in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:4]) }

// Ring is one node's keys. The first one seals packets; all of them open packets.
type Ring [][]byte

// View is the part of a ring that may be shown to others: the IDs of its keys.
type View []ID

// View returns the IDs of the ring's keys.
func (r Ring) View() View {
	var v View
	for _, k := range r {
		v = append(v, IDOf(k))
	}
	return v
}

// Equal reports whether two rings have the same keys in the same order.
func (r Ring) Equal(other Ring) bool { return slices.EqualFunc(r, other, bytes.Equal) }

// Digest tells one view from another.
func (v View) Digest() uint64 {
	h := sha256.New()
	for _, id := range v {
		h.Write(id[:])
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// String says which key seals and which keys open.
func (v View) String() string {
	var names []string
	for _, id := range v {
		names = append(names, id.String())
	}
	if len(v) < 2 {
		return strings.Join(names, "")
	}
	return fmt.Sprintf("seals with %s, opens with %s too", names[0], strings.Join(names[1:], ", "))
}

// Stage says how far a ring has come in taking up a new key.
type Stage uint8

// The stages, in order. Two nodes at the same stage or at neighbouring stages open each
// other's packets; other pairs do not.
const (
	Lacks   Stage = iota
	Accepts       // opens with the new key, seals with another
	Seals         // seals with the new key, opens with others too
	Alone         // has only the new key
)

func (s Stage) String() string {
	return [...]string{"lacks the new key", "accepts the new key", "seals with the new key", "dropped every key but"}[min(s, Alone)]
}

// Stage returns how far the ring is with key id.
func (v View) Stage(id ID) Stage {
	switch {
	case !slices.Contains(v, id):
		return Lacks
	case v[0] != id:
		return Accepts
	case len(v) > 1:
		return Seals
	}
	return Alone
}

// after returns the view as it is at stage to; v must be at the stage before.
func (v View) after(to Stage, id ID) View {
	switch to {
	case Accepts:
		return append(slices.Clone(v), id)
	case Seals:
		return append(View{id}, slices.DeleteFunc(slices.Clone(v), func(other ID) bool { return other == id })...)
	}
	return View{id}
}

// Order asks a node to bring its ring to a stage of a new key.
type Order struct {
	From uint64 // the digest of the view that the order was made for
	To   Stage
	New  ID
	Key  Wrapped // the new key itself; only for Accepts
}

var (
	errChanged = errors.New("its keys are others than a moment ago: another rotation, or a reload")
	errOrder   = errors.New("not a step of a rotation")
)

// Apply returns the ring after an order. If the ring is at that stage already, or
// further, it is returned unchanged. open opens the new key.
func (r Ring) Apply(o Order, open func(Wrapped) ([]byte, error)) (Ring, error) {
	v := r.View()
	at := v.Stage(o.New)
	switch {
	case at >= o.To:
		return r, nil
	case v.Digest() != o.From:
		return r, errChanged
	case o.To == Accepts && at == Lacks:
		return r.accept(o, open)
	case o.To == Seals && at == Accepts:
		i := slices.Index(v, o.New)
		return append(Ring{r[i]}, slices.Delete(slices.Clone(r), i, i+1)...), nil
	case o.To == Alone && at == Seals:
		return Ring{r[0]}, nil
	}
	return r, errOrder
}

func (r Ring) accept(o Order, open func(Wrapped) ([]byte, error)) (Ring, error) {
	if len(r) >= MaxKeys {
		return r, fmt.Errorf("has %d keys already (leave in its key file only those in use, and sipalive reload)", len(r))
	}
	key, err := open(o.Key)
	if err == nil && IDOf(key) != o.New {
		err = errOrder
	}
	if err != nil {
		return r, err
	}
	return append(slices.Clone(r), key), nil
}
