package member

import (
	"bytes"
	"errors"
	"testing"
)

// TestOpenBearsAnyLabelLength: the label's length is one byte, and a sum of bytes wraps.
// Lengths of 254 and 255 once made a slice end before it began: a panic caused by one
// forged datagram.
func TestOpenBearsAnyLabelLength(t *testing.T) {
	s, err := newSealer("demo", [][]byte{make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	for length := range 256 {
		for _, size := range []int{0, length - 1, length, length + 1, 2000} {
			if size < 0 {
				continue
			}
			datagram := append([]byte{hasLabel, byte(length)}, bytes.Repeat([]byte{'x'}, size)...)
			if _, err := s.open(make([]byte, 0, 4096), datagram); !errors.Is(err, errWrongLabel) && !errors.Is(err, errGarbage) {
				t.Errorf("label of %d bytes in a datagram of %d: %v", length, len(datagram), err)
			}
		}
	}
}
