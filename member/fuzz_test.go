package member

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sipalive/elect"
)

var update = flag.Bool("update", false, "write the fuzz seeds to testdata")

// hostile returns packets that a receiver must refuse, named by what they try. They are
// also the seeds of FuzzDecode, in files of the same names.
func hostile(t testing.TB) map[string][]byte {
	head, err := appendHeader(nil, header)
	if err != nil {
		t.Fatal(err)
	}
	with := func(body ...byte) []byte { return append(slices.Clone(head), body...) }
	valid := mustEncode(t, home())
	nodes := len("pbx1") + 1 + len("pbx2") + 1
	at := func(i int, v byte) []byte { b := slices.Clone(valid); b[i] = v; return b }
	zero := func(from, n int) []byte {
		b := slices.Clone(valid)
		clear(b[from : from+n])
		return b
	}
	hello := Packet{Header: header}
	hello.Seq = 0
	released := mustEncode(t, Packet{Header: header, Msg: elect.Released{VIP: "x"}})
	return map[string][]byte{
		"empty":                      {},
		"magic-of-another-protocol":  at(0, 0),
		"version-of-the-future":      at(1, version+1),
		"header-cut-short":           valid[:10],
		"body-cut-short":             valid[:len(valid)-1],
		"phone-of-no-family":         with(kindConnections, 4, 192, 0, 2, 101, 1, 5, 192, 0, 2, 1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1),
		"phone-cut-short":            with(kindConnections, 4, 192, 0, 2, 101, 1, 4, 192, 0, 2, 1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0),
		"more-phones-than-allowed":   with(append([]byte{kindConnections, 4, 192, 0, 2, 101, 65}, make([]byte, 2000)...)...),
		"timeline-of-no-mark":        with(kindTimeline, 4, 192, 0, 2, 101, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, byte(lastMark)+1, 0, 0, 0, 0, 0, 0, 0, 1, 'd'),
		"timeline-cut-short":         with(kindTimeline, 4, 192, 0, 2, 101, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0),
		"timeline-without-outcome":   with(kindTimeline, 4, 192, 0, 2, 101, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
		"timeline-of-nine-actions":   with(append([]byte{kindTimeline, 4, 192, 0, 2, 101, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9}, make([]byte, 200)...)...),
		"timeline-action-no-name":    with(kindTimeline, 4, 192, 0, 2, 101, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 'd'),
		"bytes-left-over":            append(slices.Clone(valid), 0),
		"sender-without-name":        at(2, 0),
		"sender-name-too-long":       at(2, maxName+1),
		"sender-name-not-printable":  at(3, '\n'),
		"sender-name-not-utf8":       at(3, 0xff),
		"no-instance":                zero(2+nodes, 8),
		"no-nonce":                   zero(len(head)-16, 8),
		"no-body":                    head,
		"unknown-message":            with(99),
		"hello-with-a-number":        with(kindHello),
		"message-without-a-number":   bytes.Replace(released, []byte{0xf0, 0xa2, 0x04}, []byte{0}, 1),
		"number-not-shortest":        bytes.Replace(released, []byte{0xf0, 0xa2, 0x04}, []byte{0xf0, 0xa2, 0x84, 0}, 1),
		"number-beyond-64-bits":      with(append([]byte{kindAnswer}, bytes.Repeat([]byte{0xff}, 10)...)...),
		"list-longer-than-packet":    with(kindAnswer, 1, 0, 200, 7),
		"list-longer-than-allowed":   with(append([]byte{kindAnswer, 1, 0, 0x81, 8}, make([]byte, 2000)...)...),
		"list-length-overflows":      with(append([]byte{kindAnswer, 1, 0}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1)...),
		"voters-longer-than-packet":  with(kindAsk, 0, 60),
		"voters-too-many":            with(append([]byte{kindAsk, 0, 66}, bytes.Repeat([]byte{1, 'a'}, 65)...)...),
		"voters-unsorted":            with(kindAsk, 0, 3, 1, 'b', 1, 'a', 0, 0, 0),
		"voters-twice-the-same":      with(kindAsk, 0, 3, 1, 'a', 1, 'a', 0, 0, 0),
		"flag-unknown":               with(kindAsk, 2, 0, 0, 0, 0),
		"lease-of-centuries":         with(kindAsk, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0),
		"duration-negative":          with(kindAsk, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0),
		"cause-unknown":              with(kindPrepare, 4, 192, 0, 2, 1, 1, byte(lastCause)+1, 0),
		"command-none":               with(kindRequest, 1, 0, 0, 0, 0),
		"vip-empty":                  with(kindReleased, 0, 0, 1),
		"vip-of-unknown-form":        with(kindReleased, 5, 1, 1),
		"vip-address-written-out":    with(append(append([]byte{kindReleased, 0, 9}, "192.0.2.1"...), 1)...),
		"vip-too-long":               with(append(append([]byte{kindReleased, 0, maxVIPID + 1}, strings.Repeat("x", maxVIPID+1)...), 1)...),
		"vip-not-printable":          with(kindReleased, 0, 1, 0x1b, 1),
		"text-too-long":              with(append([]byte{kindReply, 1, 0x81, 4}, bytes.Repeat([]byte{'x'}, 513)...)...),
		"text-with-a-newline":        with(kindReply, 1, 2, 'a', '\n'),
		"text-with-c1-control":       with(kindReply, 1, 2, 0xc2, 0x9b),
		"larger-than-a-datagram":     append(slices.Clone(valid), make([]byte, maxPacket)...),
		"hello-with-bytes-left-over": append(mustEncode(t, hello), 0),
	}
}

func TestDecodeRefuses(t *testing.T) {
	packets := hostile(t)
	for _, name := range slices.Sorted(maps.Keys(packets)) {
		t.Run(name, func(t *testing.T) {
			if p, err := Decode(packets[name]); err == nil {
				t.Errorf("accepted as %+v", p)
			} else {
				t.Log(err)
			}
			if len(packets[name]) > 4096 {
				return // too large for a seed
			}
			seed := filepath.Join("testdata", "fuzz", "FuzzDecode", name)
			want := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", packets[name])
			if *update {
				if err := os.MkdirAll(filepath.Dir(seed), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(seed, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := os.ReadFile(seed); err != nil || string(got) != want {
				t.Errorf("seed %s is not this packet (%v): run with -update", seed, err)
			}
		})
	}
}

// FuzzDecode: no input makes Decode panic, and every packet that it accepts has exactly
// one encoding.
func FuzzDecode(f *testing.F) {
	for _, name := range messageNames() {
		f.Add(mustEncode(f, Packet{Header: header, Msg: filled(messages[name], &nonZero{})}))
	}
	f.Add(mustEncode(f, home()))
	for _, m := range aboutKeys() {
		h := header
		h.Seq = 0
		f.Add(mustEncode(f, Packet{Header: h, Keys: m}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Encode(nil, p)
		if err != nil {
			t.Fatalf("accepted %+v but cannot encode it: %v", p, err)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("accepted %x, which encodes to %x", b, again)
		}
	})
}
