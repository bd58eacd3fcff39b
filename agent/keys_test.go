package agent

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sipalive/control"
	"sipalive/elect"
	"sipalive/keyring"
	"sipalive/member"
)

func someKey(b byte) []byte { return bytes.Repeat([]byte{b}, keyring.KeySize) }

// keyed is pbx1 of two nodes, with its keyring and network on loopback. pbx2 is a bare
// network, whose messages about keys the test reads.
type keyed struct {
	*recording
	file string
	peer *member.Network
	said chan keyring.Message
}

const loopback = `
cluster = "pbx-dc1"
key_file = "%s"
port = %d
[[node]]
name = "pbx1"
address = "127.0.78.1"
[[node]]
name = "pbx2"
address = "127.0.78.2"
[[vip]]
name = "vip1"
address = "192.0.2.101"
interface = "eth0"
`

func newKeyed(t *testing.T) *keyed {
	t.Helper()
	x := &keyed{recording: newRecording(t), file: filepath.Join(t.TempDir(), "key"), said: make(chan keyring.Message, 100)}
	if err := os.WriteFile(x.file, []byte(base64.StdEncoding.EncodeToString(someKey(1))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := parse(t, fmt.Sprintf(loopback, x.file, freePort(t)))
	a := x.a
	a.Self = c.Node("pbx1")
	a.inForce.Store(&settled{config: c, names: newNames(c, nil)})
	a.Keyring = keyring.Ring{someKey(1)}
	a.keys = newKeys(a)
	a.ended = make(chan struct{})
	began := time.Now()
	a.Now = func() elect.Instant { return elect.Instant(time.Since(began)) }
	join := func(self, other string, onKeys func(elect.Node, keyring.Message)) *member.Network {
		n, err := member.Start(member.Config{Cluster: c.Cluster, Keys: a.Keyring, Port: c.Port, Self: elect.Node(self), SelfAddress: c.Node(self).Address,
			Instance: 7, Random: randomWord, Deliver: func(elect.Received) {}, OnKeys: onKeys,
			Peers: []member.Peer{{Name: elect.Node(other), Address: c.Node(other).Address}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
		return n
	}
	a.network = join("pbx1", "pbx2", a.keys.hear)
	x.peer = join("pbx2", "pbx1", func(_ elect.Node, m keyring.Message) { x.said <- m })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.keys.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return x
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.78.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.LocalAddr().(*net.UDPAddr).Port
}

// ask asks pbx1, as pbx2, until pbx1 answers.
func (x *keyed) ask(t *testing.T, a keyring.Ask) keyring.Tell {
	t.Helper()
	a.Question = randomWord()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if err := x.peer.SendKeys("pbx1", a, false); err != nil {
			t.Fatal(err)
		}
		for again := time.After(100 * time.Millisecond); again != nil; {
			select {
			case m := <-x.said:
				if tell, is := m.(keyring.Tell); is && tell.Question == a.Question {
					return tell
				}
			case <-again:
				again = nil
			}
		}
	}
	t.Fatal("pbx1 does not answer")
	return keyring.Tell{}
}

// order orders pbx1 to make a step from its present stage.
func (x *keyed) order(t *testing.T, to keyring.Stage, key []byte) keyring.Tell {
	t.Helper()
	now := x.ask(t, keyring.Ask{})
	o := &keyring.Order{From: now.View.Digest(), To: to, New: keyring.IDOf(someKey(2))}
	if to == keyring.Accepts {
		var err error
		if o.Key, err = keyring.Wrap(key, now.Public, randomWord); err != nil {
			t.Fatal(err)
		}
	}
	return x.ask(t, keyring.Ask{Challenge: now.Challenge, Order: o})
}

// TestKeysOfAPeersRotation: each step that another node orders is in the file before it
// is confirmed, and then in the network, the status and the journal.
func TestKeysOfAPeersRotation(t *testing.T) {
	x := newKeyed(t)
	id := keyring.IDOf(someKey(2))
	if got := x.ask(t, keyring.Ask{Try: true}); got.Err != "" {
		t.Fatal(got.Err)
	}
	for i, to := range []keyring.Stage{keyring.Accepts, keyring.Seals, keyring.Alone} {
		if to == keyring.Seals { // the asker has to follow, as in a rotation
			if err := x.peer.Rekey([][]byte{someKey(2), someKey(1)}); err != nil {
				t.Fatal(err)
			}
		}
		if got := x.order(t, to, someKey(2)); got.Err != "" || got.View.Stage(id) != to {
			t.Fatalf("%s: %+v", to, got)
		}
		text, err := os.ReadFile(x.file)
		if err != nil || strings.Count(string(text), "=\n") != []int{2, 2, 1}[i] {
			t.Errorf("%s: the file is\n%s%v", to, text, err)
		}
		st := control.Status{Nodes: []control.NodeStatus{{Name: "pbx1", Alive: true}}}
		x.a.keys.addTo(&st)
		if under := to != keyring.Alone; under != (len(st.KeyRotation) == 1) || len(st.Nodes[0].Keys) != []int{2, 2, 1}[i] {
			t.Errorf("%s: status %+v, %+v", to, st.KeyRotation, st.Nodes)
		}
	}
	if left, _ := filepath.Glob(x.file + ".*"); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	x.settle()
	var said []string
	for _, e := range x.a.Journal.Last(3) {
		said = append(said, e.Kind+": "+e.Text)
	}
	want := []string{"key: accepts the new key: " + id.String() + " (asked by pbx2)", "key: seals with the new key: " + id.String() + " (asked by pbx2)",
		"key: key rotated: " + id.String() + " (asked by pbx2)"}
	if d := cmp.Diff(want, said); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	if strings.Contains(x.log.String(), base64.StdEncoding.EncodeToString(someKey(2))) {
		t.Error("a key is in the log")
	}
}

// TestKeysNotStored: a key that the file does not take is neither accepted nor confirmed.
func TestKeysNotStored(t *testing.T) {
	x := newKeyed(t)
	if err := os.WriteFile(x.file, []byte(base64.StdEncoding.EncodeToString(someKey(3))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, got := range []keyring.Tell{x.ask(t, keyring.Ask{Try: true}), x.order(t, keyring.Accepts, someKey(2))} {
		if !strings.Contains(got.Err, "has other keys than the running agent") || len(got.View) != 1 {
			t.Errorf("%+v", got)
		}
	}
	x.a.reloading.Lock()
	x.a.keys.replace(keyring.Ring{someKey(1), someKey(3)})
	x.a.reloading.Unlock()
	if got := x.ask(t, keyring.Ask{}); len(got.View) != 2 {
		t.Errorf("after a reload: %+v", got)
	}
}

// TestUnknownKey: a peer's key is called unknown after a few packets that no key opens,
// with none in between that one opens. That is told once, and the first packet that a key
// opens ends it.
func TestUnknownKey(t *testing.T) {
	x := newKeyed(t)
	named := func(opened, wrong uint64) bool {
		x.a.keys.listen(map[elect.Node]member.Heard{"pbx2": {Opened: opened, WrongKey: wrong}})
		st := control.Status{Nodes: []control.NodeStatus{{Name: "pbx2"}}}
		x.a.keys.addTo(&st)
		return st.Nodes[0].UnknownKey
	}
	x.a.keys.mu.Lock()
	clear(x.a.keys.heard)
	x.a.keys.mu.Unlock()
	for i, c := range []struct {
		opened, wrong uint64
		want          bool
	}{
		{5, 100, false}, // the state at the start
		{5, 102, false}, // two packets may be forged, or late
		{6, 102, false},
		{6, 104, false},
		{6, 105, true},
		{6, 400, true},
		{7, 400, false},
	} {
		if named(c.opened, c.wrong) != c.want {
			t.Errorf("%d: want %t", i, c.want)
		}
	}
	x.settle()
	if n := strings.Count(x.log.String(), `msg="unknown key" node=pbx1 peer=pbx2`); n != 1 {
		t.Errorf("told %d times:\n%s", n, x.log)
	}
}

// TestRotationStandsStill: a rotation that stands still is told once, and not while a
// node drives it.
func TestRotationStandsStill(t *testing.T) {
	x := newKeyed(t)
	if got := x.order(t, keyring.Accepts, someKey(2)); got.Err != "" {
		t.Fatal(got.Err)
	}
	told := func() int {
		x.a.keys.standsStill()
		x.settle()
		return strings.Count(x.log.String(), `msg="key rotation has not ended"`)
	}
	if told() > 0 {
		t.Error("told at once")
	}
	_, end, err := x.a.keys.begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := x.a.keys.begin(); err != errRotating {
		t.Errorf("two at once: %v", err)
	}
	x.a.keys.mu.Lock()
	x.a.keys.changed = time.Now().Add(-time.Hour)
	x.a.keys.mu.Unlock()
	if told() > 0 {
		t.Error("told while it goes on")
	}
	end()
	for range 2 {
		if told() != 1 {
			t.Errorf("not told once:\n%s", x.log)
		}
	}
}
