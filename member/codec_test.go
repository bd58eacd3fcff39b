package member

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/token"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sipalive/elect"
)

var header = Header{From: "pbx1", To: "pbx2", Instance: 0x1122334455667788, Seq: 70000, Nonce: 11, Echo: 12}

func mustEncode(t testing.TB, p Packet) []byte {
	t.Helper()
	b, err := Encode(nil, p)
	if err != nil {
		t.Fatalf("encode %T: %v", p.Msg, err)
	}
	return b
}

func TestEveryMessageIsCarried(t *testing.T) {
	var declared []string
	for _, file := range electSource(t) {
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.Name == "message" {
				declared = append(declared, f.Recv.List[0].Type.(*ast.Ident).Name)
			}
		}
	}
	slices.Sort(declared)
	if diff := cmp.Diff(declared, messageNames()); diff != "" {
		t.Errorf("elect's messages and the codec's differ (-elect +codec):\n%s", diff)
	}
}

func TestEveryFieldIsCarried(t *testing.T) {
	for _, name := range messageNames() {
		t.Run(name, func(t *testing.T) {
			h := header
			fill(reflect.ValueOf(&h).Elem(), &nonZero{}, "")
			want := Packet{Header: h, Msg: filled(messages[name], &nonZero{})}
			got, err := Decode(mustEncode(t, want))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, endpoints); diff != "" {
				t.Errorf("not carried whole (-sent +received):\n%s", diff)
			}
		})
	}
}

func TestEnumsEndWhereElectSays(t *testing.T) {
	known := map[string]uint8{"SIPState": 0, "Cause": 0, "Why": 0, "Refusal": 0, "CommandKind": 0, "MarkKind": 0}
	for typ, bounds := range enums {
		known[typ.Name()] = bounds[1] - bounds[0] + 1
	}
	seen := 0
	for _, file := range electSource(t) {
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			first, ok := g.Specs[0].(*ast.ValueSpec).Type.(*ast.Ident)
			if !ok {
				continue
			}
			want, ok := known[first.Name]
			if !ok {
				continue
			}
			seen++
			var values uint8
			for _, s := range g.Specs {
				if ast.IsExported(s.(*ast.ValueSpec).Names[0].Name) {
					values++
				}
			}
			if values != want {
				t.Errorf("elect.%s has %d values, the codec carries %d: see wire.go", first.Name, values, want)
			}
		}
	}
	if seen != len(known) {
		t.Errorf("found %d of %d enumerations in elect", seen, len(known))
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := messages[rapid.SampledFrom(messageNames()).Draw(t, "message")]
		want := Packet{Header: Header{
			From: elect.Node(drawn{t}.name()), To: elect.Node(drawn{t}.name()),
			Instance: elect.Instance(rapid.Uint64Min(1).Draw(t, "instance")),
			Seq:      elect.Seq(rapid.Uint64Min(1).Draw(t, "seq")),
			Nonce:    rapid.Uint64Min(1).Draw(t, "nonce"), Echo: rapid.Uint64().Draw(t, "echo"),
		}, Msg: filled(m, drawn{t})}
		b, err := Encode([]byte("before"), want)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(b, []byte("before")) {
			t.Fatal("dst was not kept")
		}
		got, err := Decode(b[len("before"):])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, endpoints); diff != "" {
			t.Fatalf("-sent +received:\n%s", diff)
		}
	})
}

func TestVoterListAbsentIsNotEmpty(t *testing.T) {
	for _, l := range []elect.VoterList{nil, {}, {"a"}} {
		p := Packet{Header: header, Msg: elect.Ask{Lists: elect.Lists{Active: l}}}
		got, err := Decode(mustEncode(t, p))
		if err != nil {
			t.Fatal(err)
		}
		if a := got.Msg.(elect.Ask).Lists.Active; !a.Equal(l) {
			t.Errorf("list %#v arrived as %#v", l, a)
		}
	}
}

func TestAddressesAreShort(t *testing.T) {
	size := func(v elect.VIPID) int {
		return len(mustEncode(t, Packet{Header: header, Msg: elect.Released{VIP: v}})) -
			len(mustEncode(t, Packet{Header: header, Msg: elect.Released{VIP: "x"}})) + 3
	}
	if n := size("192.0.2.101"); n != 5 {
		t.Errorf("IPv4 takes %d bytes, want 5", n)
	}
	if n := size("2001:db8::1"); n != 17 {
		t.Errorf("IPv6 takes %d bytes, want 17", n)
	}
}

func TestEncodeRefuses(t *testing.T) {
	long := strings.Repeat("n", maxName+1)
	for name, p := range map[string]Packet{
		"hello with a number":   {Header: header},
		"message without one":   {Header: Header{From: "a", To: "b", Instance: 1, Nonce: 1}, Msg: elect.Released{VIP: "x"}},
		"no instance":           {Header: Header{From: "a", To: "b", Seq: 1, Nonce: 1}, Msg: elect.Released{VIP: "x"}},
		"no nonce":              {Header: Header{From: "a", To: "b", Seq: 1, Instance: 1}, Msg: elect.Released{VIP: "x"}},
		"long name":             {Header: header, Msg: elect.Request{Kind: elect.CommandMove, To: elect.Node(long)}},
		"no VIP":                {Header: header, Msg: elect.Released{}},
		"unsorted voters":       {Header: header, Msg: elect.Ask{Lists: elect.Lists{File: elect.VoterList{"b", "a"}}}},
		"negative duration":     {Header: header, Msg: elect.Ask{Lease: -1}},
		"a lease beyond reason": {Header: header, Msg: elect.Ask{Lease: maxLease + 1}},
		"unknown cause":         {Header: header, Msg: elect.Prepare{VIP: "x", Cause: lastCause + 1}},
		"too many VIPs":         {Header: header, Msg: elect.Heartbeat{Excluded: slices.Repeat([]elect.VIPID{"x"}, maxVIPs+1)}},
		"larger than a datagram": {Header: header, Msg: elect.Heartbeat{
			Excluded: slices.Repeat([]elect.VIPID{elect.VIPID(strings.Repeat("x", maxVIPID))}, maxVIPs)}},
	} {
		if b, err := Encode([]byte("kept"), p); err == nil || string(b) != "kept" {
			t.Errorf("%s: got %q, %v; want dst as it was and an error", name, b, err)
		}
	}
}

func TestTextIsCutAndCleaned(t *testing.T) {
	for said, want := range map[string]string{
		"two\nlines\x1b[31m":                 "two lines [31m",
		"broken \xff":                        "broken \ufffd",
		strings.Repeat("x", maxText+9):       strings.Repeat("x", maxText),
		strings.Repeat("ä", maxText/2+1):     strings.Repeat("ä", maxText/2),
		"x" + strings.Repeat("ä", maxText/2): "x" + strings.Repeat("ä", maxText/2-1),
	} {
		got, err := Decode(mustEncode(t, Packet{Header: header, Msg: elect.Reply{ID: 1, Error: said}}))
		if err != nil {
			t.Fatal(err)
		}
		if e := got.Msg.(elect.Reply).Error; e != want {
			t.Errorf("%q arrived as %q, want %q", said, e, want)
		}
	}
}

// home returns the heartbeat of the home case: three nodes, holding one VIP and one role.
func home() Packet {
	return Packet{Header: header, Msg: elect.Heartbeat{
		Config: 1, Lease: time.Second, SIP: elect.SIPUp, Rest: elect.SIPUp, AllReach: true, Relayed: true,
		Lists: elect.Lists{File: elect.VoterList{"pbx1", "pbx2", "pbx3"}, Active: elect.VoterList{"pbx1", "pbx2", "pbx3"}},
		Holds: []elect.Hold{{VIP: "192.0.2.101", Epoch: 7, Age: time.Hour, Cause: elect.CauseCrash}, {VIP: "role:cdr", Epoch: 3}},
	}}
}

func TestEncodeAllocatesNothing(t *testing.T) {
	p, buf := home(), make([]byte, 0, 1500)
	if n := testing.AllocsPerRun(100, func() { buf, _ = Encode(buf[:0], p) }); n > 0 {
		t.Errorf("%v allocations per packet", n)
	}
}

// TestDecodeAllocatesLittle: a receiver that has heard a similar heartbeat allocates only
// three times: for the message, for the list of what is held, and for the role's name.
func TestDecodeAllocatesLittle(t *testing.T) {
	buf, r := mustEncode(t, home()), NewReader()
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.Decode(buf); err != nil {
			t.Fatal(err)
		}
	}); n > 3 {
		t.Errorf("%v allocations per heartbeat", n)
	}
}

// TestReaderRemembers: packets read by one reader equal packets read alone. Reading a
// packet changes nothing in the earlier ones.
func TestReaderRemembers(t *testing.T) {
	r := NewReader()
	var kept, want []Packet
	for i := range 3 * remembered {
		p := home()
		h := p.Msg.(elect.Heartbeat)
		voters := elect.NewVoterList("pbx1", elect.Node(fmt.Sprintf("v%d", i%7)), elect.Node(fmt.Sprintf("w%d", i)))
		h.Lists = elect.Lists{File: voters, Active: voters[:1+i%3]}
		h.Holds = []elect.Hold{{VIP: elect.VIPID(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()), Epoch: elect.Epoch(i)}}
		p.Msg = h
		got, err := r.Decode(mustEncode(t, p))
		if err != nil {
			t.Fatal(err)
		}
		if i%97 == 0 {
			kept, want = append(kept, got), append(want, p)
		}
		if len(r.names) > remembered || len(r.vips) > remembered {
			t.Fatalf("%d names and %d VIPs remembered", len(r.names), len(r.vips))
		}
	}
	if diff := cmp.Diff(want, kept); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkEncode(b *testing.B) {
	p, buf := home(), make([]byte, 0, 1500)
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = Encode(buf[:0], p)
	}
	b.ReportMetric(float64(len(buf)), "bytes/packet")
}

func BenchmarkDecode(b *testing.B) {
	buf, r := mustEncode(b, home()), NewReader()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Decode(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// TestConnectionsFitAPacket: the largest list of phones fits a path of MTU 1280 in one
// piece. This includes node names of the usual length, memberlist's label and encryption,
// and IPv6's header.
func TestConnectionsFitAPacket(t *testing.T) {
	const around = 40 + 8 + 30 + 20 // IPv6, UDP, encryption with its version, a label
	for _, c := range []struct {
		vip, phone string
		n          int
	}{
		{"192.0.2.101", "198.51.100.7:40000", elect.MaxConnections},
		{"2001:db8:1111:2222:3333:4444:5555:6666", "[2001:db8:1111:2222:3333:4444:5555:7777]:40000", elect.MaxConnections / 2},
	} {
		one := elect.Connection{Phone: netip.MustParseAddrPort(c.phone), Port: 5060, Seq: 1 << 31, Ack: 1 << 31}
		m := elect.Connections{VIP: elect.VIPID(c.vip), Items: slices.Repeat([]elect.Connection{one}, c.n)}
		if n := around + len(mustEncode(t, Packet{Header: header, Msg: m})); n > 1280 {
			t.Errorf("%d connections on %s take %d bytes", c.n, c.vip, n)
		}
	}
}
