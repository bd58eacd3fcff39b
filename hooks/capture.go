package hooks

import (
	"fmt"
	"strings"
	"unicode"
)

// The end of a long output matters more: there a failing script says why.
const (
	captureHead = 1 << 10
	captureTail = 3 << 10
)

// capture keeps the beginning and the end of what is written to it. It takes everything,
// so the writer never blocks. The zero value is ready for use. It is not safe for
// concurrent use.
type capture struct {
	head  []byte
	tail  []byte // the last bytes, up to twice captureTail between trims
	total int64
}

func (c *capture) Write(p []byte) (int, error) {
	n := len(p)
	c.total += int64(n)
	if room := captureHead - len(c.head); room > 0 {
		take := min(room, len(p))
		c.head = append(c.head, p[:take]...)
		p = p[take:]
	}
	if len(p) > captureTail {
		p = p[len(p)-captureTail:]
	}
	c.tail = append(c.tail, p...)
	if over := len(c.tail) - captureTail; over > captureTail {
		c.tail = append(c.tail[:0], c.tail[over:]...)
	}
	return n, nil
}

// String returns what was kept, safe for a terminal: valid UTF-8 without control
// characters except newline and tab.
func (c *capture) String() string {
	tail := c.tail
	if over := len(tail) - captureTail; over > 0 {
		tail = tail[over:]
	}
	text := string(c.head)
	if cut := c.total - int64(len(c.head)) - int64(len(tail)); cut > 0 {
		text += fmt.Sprintf("\n[cut: %d of %d bytes]\n", cut, c.total)
	}
	return printable(text + string(tail))
}

func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || !unicode.IsControl(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(text, "?"))
}

const lineMax = 240

// oneLine makes untrusted text safe for an error line: one line, printable, of limited
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
