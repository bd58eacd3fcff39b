package keepalived

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// token is a word, a brace, or the end of a line.
type token struct {
	line   int
	text   string
	quoted bool // a quoted `{` is not a brace
}

const endOfLine = "\n"

// lex splits a file as keepalived.conf(5) says: blanks separate words, quotes keep
// blanks,
// # and ! begin a comment, and a backslash at the end of a line joins it to the next.
func lex(text string) ([]token, error) {
	if i := invalidUTF8(text); i >= 0 {
		return nil, fmt.Errorf("line %d: byte 0x%02x is not UTF-8; save the file as UTF-8", 1+strings.Count(text[:i], "\n"), text[i])
	}
	if i := strings.IndexByte(text, 0); i >= 0 {
		return nil, fmt.Errorf("line %d: a NUL byte; this is no keepalived.conf", 1+strings.Count(text[:i], "\n"))
	}
	l := lexer{text: text, line: 1}
	for l.at < len(l.text) {
		if err := l.next(); err != nil {
			return nil, err
		}
	}
	l.add(endOfLine)
	return l.tokens, nil
}

func invalidUTF8(text string) int {
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)) {
			return i
		}
	}
	return -1
}

type lexer struct {
	text   string
	at     int
	line   int
	tokens []token
}

func (l *lexer) add(text string) { l.tokens = append(l.tokens, token{line: l.line, text: text}) }

func (l *lexer) next() error {
	switch c := l.text[l.at]; {
	case c == '\n':
		l.add(endOfLine)
		l.line++
		l.at++
	case c == ' ' || c == '\t' || c == '\r':
		l.at++
	case c == '#' || c == '!':
		end := strings.IndexByte(l.text[l.at:], '\n')
		if end < 0 {
			end = len(l.text) - l.at
		}
		l.at += end
	case c == '{' || c == '}':
		l.add(string(c))
		l.at++
	case strings.HasPrefix(l.text[l.at:], "\\\n"):
		l.line++
		l.at += 2
	default:
		return l.word()
	}
	return nil
}

// word reads up to a blank, a brace or a comment. Quotes inside it, as in a="b c", belong
// to it. ${NAME} does not open a block.
func (l *lexer) word() error {
	var b strings.Builder
	t := token{line: l.line}
	for l.at < len(l.text) {
		c := l.text[l.at]
		switch {
		case c == '"' || c == '\'':
			t.quoted = true
			inside, err := l.quotes(c)
			if err != nil {
				return err
			}
			b.WriteString(inside)
			continue
		case strings.HasPrefix(l.text[l.at:], "${"):
			end := strings.IndexAny(l.text[l.at:], "}\n")
			if end < 0 || l.text[l.at+end] != '}' {
				return fmt.Errorf("line %d: ${ is not closed", l.line)
			}
			b.WriteString(l.text[l.at : l.at+end+1])
			l.at += end + 1
			continue
		case strings.IndexByte(" \t\r\n{}#!", c) >= 0 || strings.HasPrefix(l.text[l.at:], "\\\n"):
			t.text = b.String()
			l.tokens = append(l.tokens, t)
			return nil
		}
		b.WriteByte(c)
		l.at++
	}
	t.text = b.String()
	l.tokens = append(l.tokens, t)
	return nil
}

// quotes reads the text between two quotes. A backslash escapes a quote or a backslash.
func (l *lexer) quotes(mark byte) (string, error) {
	var b strings.Builder
	for l.at++; l.at < len(l.text); l.at++ {
		switch c := l.text[l.at]; {
		case c == mark:
			l.at++
			return b.String(), nil
		case c == '\n':
			return "", fmt.Errorf("line %d: a quote is not closed", l.line)
		case c == '\\' && l.at+1 < len(l.text) && strings.IndexByte(`\"'`, l.text[l.at+1]) >= 0:
			l.at++
			b.WriteByte(l.text[l.at])
		default:
			b.WriteByte(c)
		}
	}
	return "", fmt.Errorf("line %d: a quote is not closed", l.line)
}
