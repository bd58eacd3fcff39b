package sipcheck

import (
	"strings"
	"testing"
	"time"
)

// TestJudge: one letter per outcome (a answered, s silence, r refused port, l listed
// code), and one per verdict after it: ? U S R H.
func TestJudge(t *testing.T) {
	for _, c := range []struct{ name, outcomes, verdicts string }{
		{"the first good answer counts at once", "a", "U"},
		{"also after a start beside a dead server", "rra", "RRU"},
		{"also after a start beside a silent one", "ssssa", "??SSU"},
		{"silence needs three in a row", "asss", "UUUS"},
		{"a good answer in between starts over", "assasss", "UUUUUUS"},
		{"refusal counts at once", "ar", "UR"},
		{"one good answer does not raise the dead", "arara", "URRRR"},
		{"three do", "araaa", "URRRU"},
		{"a miss while rising starts over", "araasaaa", "URRRRRRU"},
		{"silent, then up after three", "asssaaa", "UUUSSSU"},
		{"a listed code needs three in a row", "alll", "UUUH"},
		{"unhealthy at start", "lll", "??H"},
		{"silence and listed codes add up", "alsl", "UUUH"},
		{"and their turns change nothing more", "alslslsl", "UUUHHHHH"},
		{"silence that lasts renames the dead", "arsss", "URRRS"},
		{"refusal renames the silent at once", "asssr", "UUUSR"},
		{"listed answers that last rename the silent", "assslll", "UUUSSSH"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := judge{fall: 3, rise: 3}
			before := Unknown
			for i := range c.outcomes {
				o := map[byte]Outcome{'a': Answered, 's': Unanswered, 'r': PortRefused, 'l': Listed}[c.outcomes[i]]
				want := map[byte]Verdict{'?': Unknown, 'U': Up, 'S': Silent, 'R': Refused, 'H': Unhealthy}[c.verdicts[i]]
				changed := j.note(o)
				if j.verdict != want {
					t.Fatalf("after %q: %v, want %v", c.outcomes[:i+1], j.verdict, want)
				}
				if changed != (want != before) {
					t.Fatalf("after %q: changed %v", c.outcomes[:i+1], changed)
				}
				before = want
			}
		})
	}
}

func TestJudgeOfOne(t *testing.T) {
	j := judge{fall: 1, rise: 1}
	for i, step := range []struct {
		o    Outcome
		want Verdict
	}{{Unanswered, Silent}, {Answered, Up}, {Listed, Unhealthy}, {Answered, Up}} {
		if j.note(step.o); j.verdict != step.want {
			t.Fatalf("step %d: %v, want %v", i, j.verdict, step.want)
		}
	}
}

func TestWordsOfVerdictsAndOutcomes(t *testing.T) {
	var words []string
	for v := Unknown; v <= Unhealthy; v++ {
		words = append(words, v.String())
	}
	for o := Unanswered; o <= PortRefused; o++ {
		words = append(words, o.String())
	}
	const want = "unknown up silent refused unhealthy unanswered answered unhealthy code port refused"
	if got := strings.Join(words, " "); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// TestWhatAVerdictRestsOn: a suspicion rests on its own probe, a silence on the last fall
// probes. A silence that is confirmed after a good answer still rests on the probes from
// before.
func TestWhatAVerdictRestsOn(t *testing.T) {
	p := &Prober{target: Target{Fall: 3, Rise: 3}, judge: judge{fall: 3, rise: 3}}
	begin := time.Now()
	for i, step := range []struct {
		outcome Outcome
		since   int // the probe, counted from 0
	}{
		{Answered, 0}, {Unanswered, 1}, {Unanswered, 2}, {Unanswered, 1}, {Unanswered, 2}, // silent from the third on
		{Answered, 5}, {Unanswered, 2}, {Unanswered, 2}, {Unanswered, 6}, // rising, and silent again
		{PortRefused, 9}, {Unanswered, 8}, {Unanswered, 9}, {PortRefused, 12},
		{Answered, 13}, {Answered, 14}, {Answered, 15}, {Unanswered, 16}, // up
	} {
		started := begin.Add(time.Duration(i) * time.Second)
		p.judge.note(step.outcome)
		if got, want := p.restsOn(flight{started: started}, step.outcome), begin.Add(time.Duration(step.since)*time.Second); !got.Equal(want) {
			t.Errorf("probe %d: since %v, want %v", i, got.Sub(begin), want.Sub(begin))
		}
	}
}
