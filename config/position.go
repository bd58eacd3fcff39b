package config

import (
	"bytes"
	"fmt"
	"sort"

	"github.com/pelletier/go-toml/v2/unstable"
)

// position is the line of a key, a table or an array element. The values come from
// go-toml's stable API. Its unstable parser is used only for the lines, because nothing
// else knows them for values that decode well.
type position struct {
	line  int
	keys  map[string]*position
	items []*position
}

// key returns the position of a key, with p's own line if the file lacks the key.
func (p *position) key(name string) *position {
	if k := p.keys[name]; k != nil {
		return k
	}
	return &position{line: p.line}
}

// item returns the position of the i-th element of an array.
func (p *position) item(i int) *position {
	if i < len(p.items) {
		return p.items[i]
	}
	return &position{line: p.line}
}

// enter is like key but adds the key if it is missing.
func (p *position) enter(name string, line int) *position {
	k := p.keys[name]
	if k == nil {
		k = &position{line: line}
		if p.keys == nil {
			p.keys = make(map[string]*position)
		}
		p.keys[name] = k
	}
	return k
}

// last returns the element of a list of tables that a later header continues.
func (p *position) last() *position {
	if len(p.items) > 0 {
		return p.items[len(p.items)-1]
	}
	return p
}

// indexer goes through a document once.
type indexer struct {
	parser unstable.Parser
	breaks []int // offsets of the line feeds
	root   *position

	excess *Error // the first key that is too many
}

// positions indexes a document as far as it is valid TOML; go-toml reports what is not
// valid. excess is about the first key that is one too many in its table (maxKeys) or has
// too many parts (maxParts), nil if there is none. The index ends there.
func positions(data []byte) (root *position, excess *Error) {
	x := &indexer{root: &position{line: 1}}
	for at := 0; ; {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			break
		}
		x.breaks = append(x.breaks, at+i)
		at += i + 1
	}
	x.parser.Reset(data)
	table := x.root
	for x.excess == nil && x.parser.NextExpression() {
		switch n := x.parser.Expression(); n.Kind {
		case unstable.Table:
			table = x.path(x.root, n)
		case unstable.ArrayTable:
			list := x.path(x.root, n)
			table = &position{line: x.keyLine(n)}
			list.items = append(list.items, table)
		case unstable.KeyValue:
			x.keyValue(table, n)
		}
	}
	return x.root, x.excess
}

// path follows a header or dotted key. A list of tables on the way means its last
// element; at the end it means the list itself.
func (x *indexer) path(from *position, n *unstable.Node) *position {
	at, parts := from, 0
	for it := n.Key(); it.Next(); {
		k := it.Node()
		table := at.last()
		at = table.enter(string(k.Data), x.line(k.Raw, at.line))
		if len(table.keys) > maxKeys {
			x.refuse(at.line, "more than %d keys in one table", maxKeys)
		}
		if parts++; parts > maxParts {
			x.refuse(at.line, "a key of more than %d parts", maxParts)
			break
		}
	}
	return at
}

func (x *indexer) refuse(line int, format string, limit int) {
	if x.excess == nil {
		x.excess = &Error{Line: line, Text: fmt.Sprintf(format, limit) + "; `sipalive reference` prints every key there is"}
	}
}

func (x *indexer) keyValue(table *position, n *unstable.Node) {
	x.value(x.path(table, n), n.Value())
}

func (x *indexer) value(at *position, v *unstable.Node) {
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			x.keyValue(at, it.Node())
		}
	case unstable.Array:
		for it := v.Children(); it.Next(); {
			item := &position{line: x.line(it.Node().Raw, at.line)}
			at.items = append(at.items, item)
			x.value(item, it.Node())
		}
	}
}

func (x *indexer) keyLine(n *unstable.Node) int {
	it := n.Key()
	it.Next()
	return x.line(it.Node().Raw, 1)
}

// line returns the line where a range begins. A node without a range takes its parent's.
func (x *indexer) line(r unstable.Range, parent int) int {
	if r.Length == 0 && r.Offset == 0 {
		return parent
	}
	return 1 + sort.SearchInts(x.breaks, int(r.Offset))
}
