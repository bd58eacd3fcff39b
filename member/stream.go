package member

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// maxStream bounds what memberlist reads into memory. The state of 64 nodes is a few
// kilobytes; memberlist's own bound is 20 MB.
const maxStream = 1 << 20

var errStream = errors.New("not an encrypted stream of this cluster")

// stream is one of memberlist's TCP connections. It checks the first bytes before
// memberlist sees them: label, encryption, its version, the length. The version is not
// authenticated in streams either (see sealer.open): a recorded stream with version 0
// would end the process.
type stream struct {
	net.Conn
	t       *transport
	label   string // expected first; empty on a connection we dialed
	head    []byte // read from the connection, but not yet by memberlist
	checked bool
}

// adopt makes a stream of conn. If there are too many, it closes conn and returns nil.
func (t *transport) adopt(conn net.Conn, label string) *stream {
	s := &stream{Conn: conn, t: t, label: label}
	t.mu.Lock()
	ok := t.conns != nil && len(t.conns) < maxStreams
	if ok {
		t.conns[s] = true
	}
	t.mu.Unlock()
	if !ok {
		t.count.StreamsRefused.Add(1)
		conn.Close()
		return nil
	}
	return s
}

// Close closes the connection and makes room for another.
func (s *stream) Close() error {
	s.t.mu.Lock()
	delete(s.t.conns, s)
	s.t.mu.Unlock()
	return s.Conn.Close()
}

// Read reads. memberlist sets a deadline on every stream.
func (s *stream) Read(b []byte) (int, error) {
	if !s.checked {
		if err := s.check(); err != nil {
			s.t.count.StreamsRefused.Add(1)
			return 0, err
		}
		s.checked = true
	}
	if len(s.head) > 0 {
		n := copy(b, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	return s.Conn.Read(b)
}

func (s *stream) check() error {
	prefix := 0
	if s.label != "" {
		prefix = 2 + len(s.label)
	}
	head := make([]byte, prefix+6)
	if _, err := io.ReadFull(s.Conn, head); err != nil {
		return err
	}
	if prefix > 0 && (head[0] != hasLabel || int(head[1]) != len(s.label) || string(head[2:prefix]) != s.label) {
		return errStream
	}
	size := binary.BigEndian.Uint32(head[prefix+1:])
	if head[prefix] != encryptStream || head[prefix+5] != plainVersion || size > maxStream || size <= 1+nonceSize+tagSize {
		return errStream
	}
	s.head = head
	return nil
}
