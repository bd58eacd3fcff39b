package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// decoder collects all errors, so that it can report the one on the lowest line.
type decoder struct {
	root   *table
	errs   []*Error
	schema map[string]string // every key looked for; a table's value is its header, such as [vip]

	timing                                          *table
	checkTables                                     []*table
	nodeTables, vipTables, roleTables, targetTables []*table // in the order of the Config's lists
}

func newDecoder(values map[string]any, at *position) *decoder {
	d := &decoder{schema: make(map[string]string)}
	d.root = &table{d: d, values: values, at: at, where: "at the top level"}
	return d
}

func (d *decoder) fail(line int, format string, args ...any) {
	d.errs = append(d.errs, &Error{Line: line, Text: fmt.Sprintf(format, args...)})
}

// absent is fail for something that is missing.
func (d *decoder) absent(line int, format string, args ...any) {
	d.fail(line, format, args...)
	d.errs[len(d.errs)-1].missing = true
}

// first returns the error on the lowest line; of several there, the first one found.
// While a key is unknown, nothing counts as missing: most likely the unknown key is the
// missing one, misspelt or in the wrong table.
func (d *decoder) first() *Error {
	errs := d.errs
	if slices.ContainsFunc(errs, func(e *Error) bool { return e.advice != nil }) {
		errs = slices.DeleteFunc(slices.Clone(errs), func(e *Error) bool { return e.missing })
	}
	if len(errs) == 0 {
		return nil
	}
	first := slices.MinFunc(errs, func(a, b *Error) int { return a.Line - b.Line })
	if first.advice != nil {
		first.Text += first.advice()
	}
	return first
}

// table reads the keys of one table. Each getter marks its key as known; done refuses the
// rest.
type table struct {
	d      *decoder
	values map[string]any
	at     *position
	prefix string   // path of the keys in the schema, such as "vip.action."
	where  string   // for messages: "in [[vip.action]]"
	asked  []string // keys looked for
	bad    []string // keys that failed: their values here are placeholders
}

// has reports whether the file gives the key.
func (t *table) has(key string) bool { _, ok := t.values[key]; return ok }

// line returns the key's line, or the table's own line if the file lacks the key.
func (t *table) line(key string) int { return t.at.key(key).line }

func (t *table) fail(key, format string, args ...any) {
	t.bad = append(t.bad, key)
	t.d.fail(t.line(key), format, args...)
}

// good reports that none of the keys failed, so that a check across them is meaningful.
func (t *table) good(keys ...string) bool {
	return !slices.ContainsFunc(keys, func(k string) bool { return slices.Contains(t.bad, k) })
}

// get marks the key as known and returns its value.
func (t *table) get(key string) (any, bool) {
	t.asked = append(t.asked, key)
	t.d.schema[t.prefix+key] = ""
	v, ok := t.values[key]
	return v, ok
}

// scalar returns the value of a key, or def if it is missing or of another type.
func scalar[T any](t *table, key string, def T, want, example string) T {
	v, ok := t.get(key)
	if !ok {
		return def
	}
	x, ok := v.(T)
	if !ok {
		t.fail(key, "%s: %s is needed, not %s; e.g. %s = %s", key, want, kind(v), key, example)
		return def
	}
	return x
}

func (t *table) text(key, def, example string) string {
	return scalar(t, key, def, "a string", fmt.Sprintf("%q", example))
}

// required reads a string that must be present and not empty.
func (t *table) required(key, example string) string {
	s := t.text(key, "", example)
	switch {
	case !t.has(key):
		t.d.absent(t.line(key), "%s is missing %s; e.g. %s = %q", key, t.where, key, example)
	case s == "" && isText(t.values[key]):
		t.fail(key, "%s is empty; e.g. %s = %q", key, key, example)
	}
	return s
}

func (t *table) boolean(key string, def bool) bool {
	return scalar(t, key, def, "true or false", fmt.Sprint(def))
}

// number reads a whole number from low to high.
func (t *table) number(key string, def, low, high int) int {
	n := scalar(t, key, int64(def), "a whole number", fmt.Sprint(def))
	if n < int64(low) || n > int64(high) {
		t.fail(key, "%s = %d: must be between %d and %d", key, n, low, high)
		return def
	}
	return int(n)
}

// duration reads a string with a unit, from low to high.
func (t *table) duration(key string, def, low, high time.Duration) time.Duration {
	s := scalar(t, key, spell(def), "a duration, a string with a unit,", fmt.Sprintf("%q", spell(def)))
	v, err := time.ParseDuration(s)
	switch {
	case err != nil || s == "0" || s == "-0" || s == "+0":
		t.fail(key, "%s = %q: not a duration; write a number and its unit, e.g. %q", key, s, spell(def))
	case v < low:
		t.fail(key, "%s = %q: too short; at least %q", key, s, spell(low))
	case v > high:
		t.fail(key, "%s = %q: too long; at most %q", key, s, spell(high))
	default:
		return v
	}
	return def
}

// texts reads an array of strings, none of them empty.
func (t *table) texts(key, example string) []string {
	list := scalar(t, key, []any(nil), "an array of strings", example)
	var out []string
	for i, v := range list {
		s, ok := v.(string)
		switch line := t.at.key(key).item(i).line; {
		case !ok:
			t.d.fail(line, "%s: an array of strings is needed, this holds %s; e.g. %s = %s", key, kind(v), key, example)
			return nil
		case s == "":
			t.d.fail(line, "%s: element %d is empty; leave it out", key, i+1)
			return nil
		}
		out = append(out, s)
	}
	return out
}

// table returns the table under key, or an empty one if the file lacks it.
func (t *table) table(key string) *table {
	v, ok := t.get(key)
	values, isTable := v.(map[string]any)
	header := "[" + t.prefix + key + "]"
	if ok && !isTable {
		t.fail(key, "%s: a table is needed, not %s; write %s", key, kind(v), header)
	}
	return t.child(key, values, t.at.key(key), header)
}

// tables returns the list of tables under key.
func (t *table) tables(key string) []*table {
	v, ok := t.get(key)
	list, isList := v.([]any)
	header := "[[" + t.prefix + key + "]]"
	if ok && !isList {
		t.fail(key, "%s: a list of tables is needed, not %s; write %s", key, kind(v), header)
	}
	out := make([]*table, 0, len(list))
	for i, item := range list {
		at := t.at.key(key).item(i)
		values, ok := item.(map[string]any)
		if !ok {
			t.d.fail(at.line, "%s: a list of tables is needed, this holds %s; write %s", key, kind(item), header)
			continue
		}
		out = append(out, t.child(key, values, at, header))
	}
	return out
}

func (t *table) child(key string, values map[string]any, at *position, header string) *table {
	t.d.schema[t.prefix+key] = header
	return &table{d: t.d, values: values, at: at, prefix: t.prefix + key + ".", where: "in " + header}
}

// spell writes a duration the way the file does: 1m, not 1m0s.
func spell(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func isText(v any) bool { _, ok := v.(string); return ok }

// kind names a value's TOML type for people.
func kind(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "a whole number"
	case float64:
		return "a number with a fraction"
	case bool:
		return "true or false"
	case []any:
		return "an array"
	case map[string]any:
		return "a table"
	default:
		return "a date or time"
	}
}
