package config

import (
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// done refuses every key that no getter asked for. It also refuses a key that the design
// has but no code reads yet: a setting without effect would mislead.
func (t *table) done() {
	for _, key := range slices.Sorted(maps.Keys(t.values)) {
		if slices.Contains(t.asked, key) {
			continue
		}
		t.fail(key, "unknown key %q %s; ", key, t.where)
		t.d.errs[len(t.d.errs)-1].advice = func() string { return t.advice(key) }
	}
}

// advice says what would be right: the closest key of this table, otherwise the table
// that has the key, otherwise all keys of this table.
func (t *table) advice(key string) string {
	best, least := "", 3
	for _, known := range t.asked {
		// Two typos in a word of four letters make another word.
		if n := distance(fold(key), fold(known)); n < least && n <= (len(known)-1)/2 {
			best, least = known, n
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	if home := homes(key); len(home) > 0 {
		return "it belongs " + strings.Join(home, " or ")
	}
	return "known here: " + strings.Join(t.asked, ", ")
}

func fold(key string) string { return strings.ReplaceAll(strings.ToLower(key), "-", "_") }

// homes lists where the schema has a key with that name. Reading the embedded reference
// looks up every key, because it contains every table.
func homes(key string) []string {
	var values map[string]any
	if err := toml.Unmarshal(referenceTOML, &values); err != nil {
		return nil // a test parses the embedded file
	}
	at, _ := positions(referenceTOML)
	d := newDecoder(values, at)
	d.config()
	var found []string
	for path, header := range d.schema {
		parent, last := cutLast(path)
		switch {
		case last != key || header != "":
		case parent == "":
			found = append(found, "at the top level, before the first [table]")
		default:
			found = append(found, "in "+d.schema[parent])
		}
	}
	slices.Sort(found)
	return found
}

func cutLast(path string) (parent, last string) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// distance counts the typos between two short words: a letter wrong, missing or too many,
// or two letters swapped (optimal string alignment). Words of very different length are
// not compared.
func distance(a, b string) int {
	const far = 99
	if d := len(a) - len(b); d > 2 || d < -2 {
		return far
	}
	before, above := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			wrong := 1
			if a[i] == b[j] {
				wrong = 0
			}
			row[j+1] = min(row[j]+1, above[j+1]+1, above[j]+wrong)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, above = above, row
	}
	return above[len(b)]
}
