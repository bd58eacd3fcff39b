package member

import (
	"net/netip"
	"slices"

	"sipalive/elect"
)

// A Reader decodes packets. It remembers names, VIPs and voter lists, which nearly every
// packet repeats, so that reading a heartbeat makes little garbage. The values it returns
// are shared and must never be changed. Only one goroutine may use it. A nil Reader
// remembers nothing.
type Reader struct {
	names   map[string]string
	vips    map[netip.Addr]elect.VIPID
	lists   [4]elect.VoterList // the newest ones: the file's list and an active one, before and after a change
	next    int
	scratch elect.VoterList
}

// remembered bounds what anyone who has the key can make us keep. A configuration has
// less.
const remembered = 4096

// NewReader returns an empty Reader.
func NewReader() *Reader {
	return &Reader{names: map[string]string{}, vips: map[netip.Addr]elect.VIPID{}}
}

func (r *Reader) name(b []byte) string {
	if r == nil {
		return string(b)
	}
	s, known := r.names[string(b)] // does not allocate
	if !known {
		s = string(b)
		if len(r.names) >= remembered {
			clear(r.names)
		}
		r.names[s] = s
	}
	return s
}

func (r *Reader) vip(a netip.Addr) elect.VIPID {
	if r == nil {
		return elect.VIPID(a.String())
	}
	id, known := r.vips[a]
	if !known {
		id = elect.VIPID(a.String())
		if len(r.vips) >= remembered {
			clear(r.vips)
		}
		r.vips[a] = id
	}
	return id
}

// room returns memory for a list of n voters.
func (r *Reader) room(n uint64) elect.VoterList {
	if r == nil {
		return make(elect.VoterList, n)
	}
	r.scratch = slices.Grow(r.scratch[:0], int(n))[:n]
	return r.scratch
}

// voters returns a lasting copy of a list that was read into room's memory.
func (r *Reader) voters(l elect.VoterList) elect.VoterList {
	if r == nil {
		return l
	}
	for _, known := range r.lists {
		if known.Equal(l) {
			return known
		}
	}
	l = slices.Clone(l)
	r.lists[r.next] = l
	r.next = (r.next + 1) % len(r.lists)
	return l
}
