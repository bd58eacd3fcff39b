package control

import (
	"testing"
	"time"
)

func TestFelt(t *testing.T) {
	event := func(reason, outcome string, marks ...string) Event {
		e := Event{Kind: Takeover, VIP: "vip1", From: "pbx2", To: "pbx1", Reason: reason, Outcome: outcome}
		at := map[string]time.Duration{"last heard": -time.Second, "noticed": 0, "lease": 4 * time.Millisecond, "bound": 5 * time.Millisecond,
			"announced": 6 * time.Millisecond, "sip answered": 9 * time.Millisecond, "router proven": 12 * time.Millisecond}
		for _, m := range marks {
			e.Add(m, at[m])
		}
		return e
	}
	all := []string{"noticed", "lease", "bound", "announced", "sip answered"}
	late := event("move", "done", "noticed", "lease", "bound", "sip answered")
	late.Add("announced", 4406*time.Millisecond) // it had to wait for its turn ([announce] limit)
	for name, c := range map[string]struct {
		event    Event
		none     bool
		since    string
		from, to float64 // to -1: it still goes on
	}{
		"crash":                       {event("crash", "done", append(all, "last heard")...), false, "last heard", -1000, 9},
		"sip":                         {event("sip", "done", all...), false, "noticed", 0, 9},
		"move":                        {event("move", "done", all...), false, "lease", 4, 9},
		"router after SIP":            {event("move", "done", append(all, "router proven")...), false, "lease", 4, 12},
		"announced late":              {late, false, "lease", 4, 4406},
		"unverified":                  {event("move", "done", all[:4]...), false, "lease", 4, 6},
		"a role":                      {event("move", "done", all[:2]...), false, "lease", 4, 4},
		"goes on":                     {event("crash", "", "last heard", "noticed", "lease", "announced"), false, "last heard", -1000, -1},
		"failed":                      {event("sip", "vip1 does not answer SIP", all[:4]...), false, "noticed", 0, -1},
		"answered, an action goes on": {event("sip", "", all...), false, "noticed", 0, 9},
		"boot":                        {event: event("boot", "done", all...), none: true},
		"other":                       {event: Event{Kind: KindRelease, From: "pbx1"}, none: true},
		"bare":                        {event: event("crash", ""), none: true},
	} {
		f := c.event.felt()
		if c.none || f == nil {
			if c.none != (f == nil) {
				t.Errorf("%s: %v", name, f)
			}
			continue
		}
		to := -1.0
		if f.To != nil {
			to = f.To.seconds() * 1000
		}
		if f.Since != c.since || f.From.seconds()*1000 != c.from || to != c.to {
			t.Errorf("%s: from %v to %v ms, want %v to %v", name, f.From, to, c.from, c.to)
		}
	}
}
