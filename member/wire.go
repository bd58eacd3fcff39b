package member

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
	"unicode/utf8"

	"sipalive/elect"
)

// The last value of each enumeration. TestEnumsEndWhereElectSays checks them.
const (
	lastSIPState    = elect.SIPRefused
	lastCause       = elect.CauseCheck
	lastWhy         = elect.WhyAlone
	lastRouterState = elect.RouterProven
	lastRefusal     = elect.RefusedList
	lastCommand     = elect.CommandFlush
	lastMark        = elect.MarkSIPAnswered
)

const (
	maxLease = 24 * time.Hour // a lease that a voter would be bound by
	maxAge   = 100 * 365 * 24 * time.Hour

	optional, required = 0, 1 // least length of a name
)

// coder reads or writes, so that one description of a struct serves both directions. It
// keeps the first error; after an error it reads nothing more.
type coder struct {
	b        []byte // encoding: written so far; decoding: not read yet
	decoding bool
	known    *Reader
	err      error
}

func (c *coder) fail(what string) {
	if c.err == nil {
		c.err = errors.New(what)
	}
	if c.decoding {
		c.b = nil
	}
}

// byte reads one byte; only for decoding.
func (c *coder) byte() byte {
	if len(c.b) == 0 {
		c.fail("cut short")
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

// take reads n bytes; only for decoding.
func (c *coder) take(n int) []byte {
	if n > len(c.b) {
		c.fail("cut short")
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *coder) exact(want byte, what string) {
	if !c.decoding {
		c.b = append(c.b, want)
	} else if c.byte() != want {
		c.fail(what)
	}
}

func (c *coder) uvarint(v uint64) uint64 {
	if !c.decoding {
		c.b = binary.AppendUvarint(c.b, v)
		return v
	}
	v, n := binary.Uvarint(c.b)
	if n <= 0 || n > 1 && c.b[n-1] == 0 {
		c.fail("not a number in its shortest form")
		return 0
	}
	c.b = c.b[n:]
	return v
}

// number carries a value that is mostly small; word carries a random one.
func number[T ~uint64](c *coder, v *T) { *v = T(c.uvarint(uint64(*v))) }

func word[T ~uint64](c *coder, v *T) {
	if !c.decoding {
		c.b = binary.BigEndian.AppendUint64(c.b, uint64(*v))
	} else if b := c.take(8); b != nil {
		*v = T(binary.BigEndian.Uint64(b))
	}
}

// fixed carries a number in size bytes, the highest byte first.
func (c *coder) fixed(v uint32, size int) uint32 {
	if !c.decoding {
		for i := size - 1; i >= 0; i-- {
			c.b = append(c.b, byte(v>>(8*i)))
		}
		return v
	}
	v = 0
	for _, b := range c.take(size) {
		v = v<<8 | uint32(b)
	}
	return v
}

// endpoint carries an address and a port in 7 or 19 bytes.
func (c *coder) endpoint(v *netip.AddrPort) {
	a, port := v.Addr(), v.Port()
	switch {
	case c.decoding:
		switch c.byte() {
		case 4:
			if b := c.take(4); b != nil {
				a = netip.AddrFrom4([4]byte(b))
			}
		case 6:
			if b := c.take(16); b != nil {
				a = netip.AddrFrom16([16]byte(b))
			}
		default:
			c.fail("not an address")
		}
	case !a.IsValid() || a.Zone() != "":
		c.fail("not an address")
	case a.Is4():
		b := a.As4()
		c.b = append(append(c.b, 4), b[:]...)
	default:
		b := a.As16()
		c.b = append(append(c.b, 6), b[:]...)
	}
	port = uint16(c.fixed(uint32(port), 2))
	*v = netip.AddrPortFrom(a, port)
}

func enum[T ~uint8](c *coder, v *T, first, last T) {
	if !c.decoding {
		c.b = append(c.b, byte(*v))
	} else {
		*v = T(c.byte())
	}
	if *v < first || *v > last {
		c.fail("value not in its enumeration")
	}
}

func (c *coder) flags(bits ...*bool) {
	if c.decoding {
		v := c.byte()
		for i, bit := range bits {
			*bit = v>>i&1 == 1
		}
		if v>>len(bits) != 0 {
			c.fail("unknown flag")
		}
		return
	}
	var v byte
	for i, bit := range bits {
		if *bit {
			v |= 1 << i
		}
	}
	c.b = append(c.b, v)
}

func (c *coder) duration(d *time.Duration, limit time.Duration) {
	if !c.decoding && (*d < 0 || *d > limit) {
		c.fail("duration out of range")
		return
	}
	v := c.uvarint(uint64(*d))
	if v > uint64(limit) {
		c.fail("duration out of range")
		return
	}
	*d = time.Duration(v)
}

// list carries the length of a list and returns the list for the caller to walk.
func list[T any](c *coder, v *[]T, limit int) []T {
	n := c.uvarint(uint64(len(*v)))
	// Each element takes at least a byte, so a false length allocates nothing.
	if n > uint64(limit) || c.decoding && n > uint64(len(c.b)) {
		c.fail("list too long")
		return nil
	}
	if c.decoding && n > 0 {
		*v = make([]T, n)
	}
	return *v
}

// voters carries a list's length plus one, so that an absent list differs from an empty
// one (§4.9).
func (c *coder) voters(l *elect.VoterList) {
	n := uint64(0)
	if !c.decoding && *l != nil {
		n = uint64(len(*l)) + 1
	}
	n = c.uvarint(n)
	if n > maxVoters+1 || c.decoding && n > uint64(len(c.b))+1 {
		c.fail("list too long")
		return
	}
	if c.decoding && n > 0 {
		*l = c.known.room(n - 1)
	}
	for i := range *l {
		name(c, &(*l)[i], required)
		if i > 0 && (*l)[i-1] >= (*l)[i] {
			c.fail("voters not sorted") // elect uses binary search
		}
	}
	if c.decoding && n > 0 {
		*l = c.known.voters(*l)
	}
}

// name carries a short string; with required it must not be empty.
func name[T ~string](c *coder, v *T, least int) {
	if !c.decoding {
		if len(*v) < least || len(*v) > maxName || !printable(string(*v)) {
			c.fail("not a name")
			return
		}
		c.b = append(append(c.b, byte(len(*v))), *v...)
		return
	}
	n := int(c.byte())
	b := c.take(n)
	if n < least || n > maxName || !printable(b) {
		c.fail("not a name")
		return
	}
	*v = T(c.known.name(b))
}

// vip carries an identity in 5 or 17 bytes if it is a canonical address, otherwise as
// text.
func (c *coder) vip(v *elect.VIPID, least int) {
	if c.decoding {
		*v = c.readVIP(least)
		return
	}
	a, ok := canonical(string(*v))
	switch {
	case ok && a.Is4():
		b := a.As4()
		c.b = append(append(c.b, 4), b[:]...)
	case ok:
		b := a.As16()
		c.b = append(append(c.b, 6), b[:]...)
	case len(*v) < least || len(*v) > maxVIPID || !printable(string(*v)):
		c.fail("not a VIP's identity")
	default:
		c.b = append(append(c.b, 0, byte(len(*v))), *v...)
	}
}

func (c *coder) readVIP(least int) elect.VIPID {
	switch c.byte() {
	case 4:
		if b := c.take(4); b != nil {
			return c.known.vip(netip.AddrFrom4([4]byte(b)))
		}
	case 6:
		if b := c.take(16); b != nil {
			return c.known.vip(netip.AddrFrom16([16]byte(b)))
		}
	case 0:
		n := int(c.byte())
		b := c.take(n)
		if n >= least && n <= maxVIPID && printable(b) {
			if _, address := canonical(string(b)); !address {
				return elect.VIPID(c.known.name(b))
			}
		}
	}
	c.fail("not a VIP's identity")
	return ""
}

// canonical parses an address. It accepts only the form that netip writes.
func canonical(s string) (netip.Addr, bool) {
	if s == "" || s[0] > 'f' { // a role's name; a failed parse would allocate
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	var buf [64]byte
	return a, string(a.AppendTo(buf[:0])) == s
}

// text carries words for people. Encoding cuts and cleans them, so they never prevent
// sending.
func (c *coder) text(s *string) {
	if c.decoding {
		n := c.uvarint(0)
		if n > maxText {
			c.fail("text too long")
			return
		}
		b := c.take(int(n))
		if !printable(b) {
			c.fail("text is not printable")
			return
		}
		*s = string(b)
		return
	}
	size := 0
	for _, r := range *s {
		if size+runeLen(r) > maxText {
			break
		}
		size += runeLen(r)
	}
	c.b = binary.AppendUvarint(c.b, uint64(size))
	for _, r := range *s {
		if size -= runeLen(r); size < 0 {
			break
		}
		c.b = utf8.AppendRune(c.b, clean(r))
	}
}

func runeLen(r rune) int { return utf8.RuneLen(clean(r)) }

func clean(r rune) rune {
	if control(r) {
		return ' '
	}
	return r
}

func control(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }

// printable reports whether s is UTF-8 that is safe in a log line.
func printable[T string | []byte](s T) bool {
	for i := 0; i < len(s); {
		r, n := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, n = decodeRune(s[i:])
			if r == utf8.RuneError && n == 1 {
				return false
			}
		}
		if control(r) {
			return false
		}
		i += n
	}
	return true
}

func decodeRune[T string | []byte](s T) (rune, int) {
	var b [utf8.UTFMax]byte
	return utf8.DecodeRune(b[:copy(b[:], s)])
}
