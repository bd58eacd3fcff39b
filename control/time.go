package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Since is a moment for people and scripts: in JSON as RFC 3339 in UTC with whole
// seconds. The zero value means unknown and is written as "".
type Since struct{ time.Time }

// Stamp is a moment: in JSON as RFC 3339 in UTC with three digits of milliseconds.
type Stamp struct{ time.Time }

const (
	sinceFormat = "2006-01-02T15:04:05Z07:00"
	stampFormat = "2006-01-02T15:04:05.000Z07:00"
)

// MarshalJSON writes whole seconds in UTC.
func (s Since) MarshalJSON() ([]byte, error) { return marshalTime(s.Time, sinceFormat), nil }

// UnmarshalJSON reads RFC 3339 or "".
func (s *Since) UnmarshalJSON(b []byte) error { return unmarshalTime(b, &s.Time) }

// MarshalJSON writes milliseconds in UTC.
func (s Stamp) MarshalJSON() ([]byte, error) { return marshalTime(s.Time, stampFormat), nil }

// UnmarshalJSON reads RFC 3339 or "".
func (s *Stamp) UnmarshalJSON(b []byte) error { return unmarshalTime(b, &s.Time) }

func marshalTime(t time.Time, layout string) []byte {
	if t.IsZero() {
		return []byte(`""`)
	}
	return []byte(`"` + t.UTC().Format(layout) + `"`)
}

func unmarshalTime(b []byte, t *time.Time) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s == "" {
		*t = time.Time{}
		return nil
	}
	parsed, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}

// Millis is a duration: in JSON a number of milliseconds, to the microsecond.
type Millis time.Duration

// MarshalJSON writes milliseconds as the shortest number, such as 3.214.
func (m Millis) MarshalJSON() ([]byte, error) {
	us := time.Duration(m).Round(time.Microsecond).Microseconds()
	return strconv.AppendFloat(nil, float64(us)/1000, 'f', -1, 64), nil
}

// UnmarshalJSON reads a number of milliseconds.
func (m *Millis) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return fmt.Errorf("milliseconds %s: not a number", oneLine(string(b)))
	}
	*m = Millis(f * float64(time.Millisecond))
	return nil
}

// String formats milliseconds with one digit after the point, as in the tables.
func (m Millis) String() string {
	return strconv.FormatFloat(float64(m)/float64(time.Millisecond), 'f', 1, 64) + " ms"
}

// encode returns v as one line of JSON. It escapes no HTML: people read "pbx1 -> pbx3".
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
