// Package keepalived reads a keepalived.conf(5) and writes the sipalive.toml that comes
// closest to it. It touches no file and no machine: text in, text out.
package keepalived

import (
	"fmt"
	"strings"
)

// statement is a line of the file: its words, and the block that follows it, if any.
type statement struct {
	line  int
	words []string
	block []statement
}

const (
	maxDepth = 16      // no block in keepalived is nested more than six deep
	maxText  = 1 << 20 // bytes of a file, and of its words with the variables expanded
)

// parser reads tokens. config is keepalived's -i, which selects among lines that begin
// with @.
type parser struct {
	tokens  []token
	at      int
	config  string
	vars    map[string]string
	size    int // of all words so far
	skipped []note
}

func (p *parser) statements(depth int) ([]statement, error) {
	var out []statement
	if depth > maxDepth {
		return nil, fmt.Errorf("line %d: blocks are nested more than %d deep; this is no keepalived.conf", p.tokens[p.at].line, maxDepth)
	}
	for p.at < len(p.tokens) {
		t := p.tokens[p.at]
		switch {
		case t.text == endOfLine && !t.quoted:
			p.at++
		case t.is("}"):
			if depth == 0 {
				return nil, fmt.Errorf("line %d: } closes nothing", t.line)
			}
			p.at++
			return out, nil
		default:
			s, taken, err := p.statement(depth)
			if err != nil {
				return nil, err
			}
			if taken {
				out = append(out, s)
			}
		}
	}
	if depth > 0 {
		return nil, fmt.Errorf("line %d: the file ends inside a block; a } is missing", p.tokens[len(p.tokens)-1].line)
	}
	return out, nil
}

func (t token) is(brace string) bool { return t.text == brace && !t.quoted }

// statement reads one statement and its block. The block's brace may be on the next line.
func (p *parser) statement(depth int) (s statement, taken bool, err error) {
	s.line = p.tokens[p.at].line
	taken = true
	if t := p.tokens[p.at]; strings.HasPrefix(t.text, "@") && !t.quoted {
		taken = p.applies(t.text[1:])
		p.at++
	}
	for ; p.at < len(p.tokens); p.at++ {
		t := p.tokens[p.at]
		if !t.quoted && (t.text == endOfLine || t.text == "{" || t.text == "}") {
			break
		}
		word := t.text
		if name, value, is := assigned(word); is && len(s.words) == 0 {
			word = name + p.expand(value)
		} else {
			word = p.expand(word)
		}
		if p.size += len(word) + 1; p.size > maxText {
			return s, false, fmt.Errorf("line %d: the file and its variables make more than %d bytes; this is no keepalived.conf", t.line, maxText)
		}
		s.words = append(s.words, word)
	}
	if p.opens() {
		if s.block, err = p.statements(depth + 1); err != nil {
			return s, false, err
		}
		if s.block == nil {
			s.block = []statement{}
		}
	}
	switch {
	case !taken:
		p.skipped = append(p.skipped, note{[]int{s.line}, strings.Join(s.words, " "), "only with another -i; give --config-id to take it"})
	case len(s.words) > 0 && s.block == nil && p.define(s.words):
		taken = false
	case len(s.words) == 0 && s.block == nil:
		taken = false
	}
	return s, taken, nil
}

// opens moves past a { that comes next, skipping line ends.
func (p *parser) opens() bool {
	for i := p.at; i < len(p.tokens); i++ {
		switch t := p.tokens[i]; {
		case t.is("{"):
			p.at = i + 1
			return true
		case t.text != endOfLine || t.quoted:
			return false
		}
	}
	return false
}

// applies reports whether a line for that -i counts; ^ means all others.
func (p *parser) applies(id string) bool {
	if other, not := strings.CutPrefix(id, "^"); not {
		return other != p.config
	}
	return id == p.config
}

// assigned splits $NAME=VALUE after the =.
func assigned(word string) (name, value string, is bool) {
	i := strings.IndexByte(word, '=')
	if i < 2 || word[0] != '$' {
		return "", "", false
	}
	if name, rest := variable(word[1:i]); name == "" || rest != "" {
		return "", "", false
	}
	return word[:i+1], word[i+1:], true
}

// define records $NAME=VALUE and reports whether words are one.
func (p *parser) define(words []string) bool {
	name, value, is := assigned(words[0])
	if is {
		p.vars[name[1:len(name)-1]] = strings.Join(append([]string{value}, words[1:]...), " ")
	}
	return is
}

// expand replaces ${NAME} and $NAME by their values. An undefined variable stays, as in
// keepalived.
func (p *parser) expand(word string) string {
	if !strings.Contains(word, "$") {
		return word
	}
	var b strings.Builder
	for word != "" {
		i := strings.IndexByte(word, '$')
		if i < 0 || b.Len() > maxText {
			break
		}
		b.WriteString(word[:i])
		name, rest := variable(word[i+1:])
		if value, known := p.vars[name]; known && name != "" {
			b.WriteString(value)
		} else {
			b.WriteString(word[i : len(word)-len(rest)])
		}
		word = rest
	}
	return b.String() + word
}

// variable splits off the variable name that text begins with, in braces or not.
func variable(text string) (name, rest string) {
	if inside, is := strings.CutPrefix(text, "{"); is {
		if name, rest, is = strings.Cut(inside, "}"); is {
			return name, rest
		}
		return "", text
	}
	end := 0
	for end < len(text) && (text[end] == '_' || isAlphanumeric(rune(text[end]))) {
		end++
	}
	return text[:end], text[end:]
}
