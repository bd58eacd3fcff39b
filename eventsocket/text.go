package eventsocket

import (
	"strings"
	"unicode"
)

const lineMax = 240

// oneLine makes FreeSWITCH's text safe for an error line: one line, printable, of limited
// length.
func oneLine(text string) string {
	text = strings.Join(strings.FieldsFunc(printable(text), func(r rune) bool {
		return r == '\n' || r == '\t'
	}), " ")
	if len(text) > lineMax {
		text = strings.ToValidUTF8(text[:lineMax], "") + "..."
	}
	return text
}

func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || !unicode.IsControl(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(text, "?"))
}
