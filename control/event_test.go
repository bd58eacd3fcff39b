package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func takeover() Event {
	e := Event{ID: 3, Time: Stamp{at("03:04:05.007")}, Node: "pbx3", Kind: Takeover, VIP: "vip1", Epoch: 8, From: "pbx1", To: "pbx3", Reason: "crash"}
	e.Add("noticed", 0)
	e.Add("lease", 1041300*time.Microsecond)
	e.Add("bound", 1041341*time.Microsecond)
	e.Add("announced", 1041*time.Millisecond+402*time.Microsecond)
	e.Add("sip answered", 1062*time.Millisecond)
	// Actions are added when they end but are listed where they started.
	e.AddAction("memcached 127.0.0.1:11211", 1041500*time.Microsecond, 700*time.Microsecond, "OK\n", nil)
	e.AddAction("exec /etc/sipalive/hooks/takeover", 1042200*time.Microsecond, 5*time.Second,
		"asking the switch\n\x1b[31mno such port\n"+strings.Repeat("more\n", 12), errors.New("killed after 5s"))
	return e
}

func TestEventsForPeople(t *testing.T) {
	done := takeover()
	done.Outcome = "done in 1062.0 ms"
	goingOn := takeover()
	goingOn.From, goingOn.Timeline = "", goingOn.Timeline[:1]
	var b bytes.Buffer
	for _, e := range []Event{
		{Time: Stamp{at("03:04:04.000")}, Node: "pbx3", Kind: KindNode, Text: "pbx1 silent\nfor 1 s"},
		done, goingOn,
		{Time: Stamp{at("03:04:09.999")}, Node: "pbx3", Kind: KindVacant, VIP: "vip2"},
	} {
		if err := WriteEvent(&b, e, time.UTC); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "events.txt", b.Bytes())
}

func TestEventJSON(t *testing.T) {
	e := takeover()
	e.Outcome = "done"
	got, err := encode(e)
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, got, "", " "); err != nil {
		t.Fatal(err)
	}
	golden(t, "event.json", indented.Bytes())
	var back Event
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	if again, err := encode(back); err != nil || !bytes.Equal(got, again) {
		t.Errorf("event changes on its way through a client (%v):\n%s\n%s", err, got, again)
	}
}

func TestTimesRefuseNonsense(t *testing.T) {
	for _, doc := range []string{`{"since":"yesterday"}`, `{"since":5}`} {
		if err := json.Unmarshal([]byte(doc), &VIPStatus{}); err == nil {
			t.Errorf("%s: accepted", doc)
		}
	}
	if err := json.Unmarshal([]byte(`{"at_ms":"soon"}`), &Mark{}); err == nil {
		t.Error(`at_ms "soon": accepted`)
	}
}

func TestClip(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("ä", 600), strings.Repeat("x", 5000), "a" + strings.Repeat("ß", 512)} {
		got := clip(s, maxText)
		if len(got) > maxText || !utf8.ValidString(got) || len(s) <= maxText && got != s || len(s) > maxText && !strings.HasSuffix(got, "…") {
			t.Errorf("clip of %d bytes: %d bytes, ending %q", len(s), len(got), got[max(0, len(got)-8):])
		}
	}
}
