package control

import "strings"

// tone is how a word is highlighted.
type tone string

// The tones are parameters of Select Graphic Rendition (ECMA-48 §8.3.117). They use only
// the eight colours that every terminal has and its user may have redefined.
const (
	plain    tone = ""
	heading  tone = "1"
	good     tone = "32"
	odd      tone = "33"
	alarming tone = "31;1"
)

// tones maps the heading of a column to the words in it that are highlighted.
var tones = map[string]map[string]tone{
	"STATE":    {"held": good, "up": good, "moving": odd, "survivor": odd, "vacant": alarming, "silent": alarming, "refused": alarming, "unhealthy": alarming},
	"ALIVE":    {"no": alarming},
	"FIT":      {"no": alarming},
	"SIP":      {"down": alarming},
	"DRAINED":  {"yes": odd},
	"VERIFIED": {"no": alarming},
	"ROUTER":   {"proven": good, "unproven": alarming},
}

func (t *table) tone(row, column int) tone {
	if row == 0 {
		return heading
	}
	if column >= len(t.rows[0]) {
		return plain
	}
	word, _, _ := strings.Cut(t.rows[row][column], " ") // "proven in 3.2 ms"
	return tones[t.rows[0][column]][word]
}

func (l Look) paint(t tone, word string) string {
	if !l.Color || t == plain {
		return word
	}
	return "\x1b[" + string(t) + "m" + word + "\x1b[0m"
}
