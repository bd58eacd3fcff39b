package agent

import (
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sipalive/control"
	"sipalive/elect"
)

// documented returns the words in the first column of the table under a heading.
func documented(t *testing.T, file, heading string) (words []string) {
	t.Helper()
	doc, err := os.ReadFile("../docs/" + file)
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(doc), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/%s has no heading %q any more", file, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		words = append(words, m[1])
	}
	slices.Sort(words)
	return words
}

// enumerated returns the values of an enumeration from first on. The String of a value
// beyond the last repeats the last one's.
func enumerated[T interface {
	~uint8
	String() string
}](first T) (all []T) {
	for v := first; len(all) == 0 || v.String() != all[len(all)-1].String(); v++ {
		all = append(all, v)
	}
	return all
}

// TestDocumentedReasons: docs/events.md lists every reason, and no other.
func TestDocumentedReasons(t *testing.T) {
	var reasons []string
	for _, c := range enumerated(elect.CauseBoot) {
		reasons = append(reasons, c.String())
	}
	slices.Sort(reasons)
	if diff := cmp.Diff(reasons, documented(t, "events.md", "reason")); diff != "" {
		t.Errorf("reasons (-code +docs/events.md):\n%s", diff)
	}
}

// TestDocumentedAlarms: docs/alarms.md lists every event that is logged as a warning or
// an error, and no other.
func TestDocumentedAlarms(t *testing.T) {
	alarms := []string{control.KindRouter, control.KindUnreachable, control.KindRival}
	for _, k := range enumerated(elect.Acquired) {
		if forms[k].event == "" {
			t.Errorf("nobody has said how %q is told", k)
		}
		if forms[k].level > slog.LevelInfo {
			alarms = append(alarms, k.String())
		}
	}
	slices.Sort(alarms)
	if diff := cmp.Diff(alarms, documented(t, "alarms.md", "Events that are warnings or errors")); diff != "" {
		t.Errorf("alarms (-code +docs/alarms.md; say what it means and what to do):\n%s", diff)
	}
}
