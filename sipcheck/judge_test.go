package sipcheck

import (
	"strings"
	"testing"
)

// One letter per outcome, one per verdict after it: a answered, s silence,
// r refused port, l listed code; ? U S R H for the verdicts.
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
