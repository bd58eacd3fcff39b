package member

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sipalive/elect"
)

// TestTimelineOnTheWire checks the bytes that other versions read and write.
func TestTimelineOnTheWire(t *testing.T) {
	m := elect.Timeline{VIP: "192.0.2.101", Epoch: 8, Previous: "pbx1", Cause: elect.CauseCrash, Why: elect.WhySpare, Ago: 0x01020304, Noticed: 1000000,
		Marks:   []elect.Mark{{Kind: elect.MarkLastHeard}, {Kind: elect.MarkNoticed, At: 1000000}, {Kind: elect.MarkSIPAnswered, At: 1009000}},
		Actions: []elect.ActionMark{{Action: "exec /x", At: 1003000, Took: 2000, OK: true}, {Action: "é", At: 1005000, Took: 1}},
		Left:    3, Outcome: "done"}
	want := strings.Join([]string{
		"11", "04c0000265", "08", "0470627831", "02", "04", "01020304", "000f4240",
		"03", "0000000000", "01000f4240", "06000f6568",
		"02", "0765786563202f78" + "000f4df8" + "000007d0" + "01", "02c3a9" + "000f55c8" + "00000001" + "00",
		"0003", "04646f6e65",
	}, "")
	body, err := appendBody(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(body); got != want {
		t.Errorf("encoded as\n%s, want\n%s", got, want)
	}
	p, err := Decode(mustEncode(t, Packet{Header: header, Msg: m}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(elect.Message(m), p.Msg); diff != "" {
		t.Error(diff)
	}
}

// TestTimelineFitsAPacket: the longest timeline with the longest names fits in one
// datagram of at most 1200 bytes, including memberlist's label and encryption and IPv6's
// header.
func TestTimelineFitsAPacket(t *testing.T) {
	const around = 40 + 8 + 30 + 20 // as for connections
	long := strings.Repeat("n", maxName)
	m := elect.Timeline{VIP: elect.VIPID(strings.Repeat("x", maxVIPID)), Epoch: 1<<64 - 1, Previous: elect.Node(long), Outcome: elect.Brief(long),
		Actions: slices.Repeat([]elect.ActionMark{{Action: elect.Brief(long)}}, elect.MaxActionMarks)}
	for k := elect.MarkLastHeard; k <= lastMark; k++ {
		m.Marks = append(m.Marks, elect.Mark{Kind: k, At: 1<<32 - 1})
	}
	h := Header{From: elect.Node(long), To: elect.Node(long), Instance: 1, Seq: 1<<64 - 1, Nonce: 1}
	if n := around + len(mustEncode(t, Packet{Header: h, Msg: m})); n > 1200 {
		t.Errorf("the longest timeline takes %d bytes", n)
	} else {
		t.Logf("the longest timeline takes %d bytes", n)
	}
}

// TestUnknownMessageHarmsNobody: a message of a newer agent that this one does not know
// is counted once, and the sender's next message is heard.
func TestUnknownMessageHarmsNobody(t *testing.T) {
	port := freePort(t)
	a := start(t, config(1, port))
	p := play(t, 2, port, 7, key)
	p.greet(1)
	p.write(p.packet("pbx1", 1, elect.Heartbeat{}), 1)
	a.hear(t, "pbx2", 1)
	for seq := elect.Seq(2); seq < 20; seq += 2 {
		b, err := appendHeader(nil, p.guard.Stamp("pbx1", seq))
		if err != nil {
			t.Fatal(err)
		}
		before := a.Counters()
		p.write(p.seal(append(b, 99, 1, 2, 3)), 1)
		eventually(t, "it is counted", func() bool { return a.Counters().Garbage == before.Garbage+1 })
		p.write(p.packet("pbx1", seq+1, elect.Heartbeat{}), 1)
		a.hear(t, "pbx2", seq+1)
	}
	if c := a.Counters(); c.Replayed+c.Unproven+c.StaleInstance+c.ReceiveErrors != 0 {
		t.Errorf("counted besides: %+v", c)
	}
}
