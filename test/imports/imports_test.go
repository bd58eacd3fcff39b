// Package imports keeps the rooms apart: it checks the imports that the go command lists
// against docs/design.md §3.
package imports

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "sipalive"

// allowed lists, by room, which other rooms it may import. cmd and test may import all.
var allowed = map[string][]string{
	"agent":       {"elect", "keyring", "member", "sipcheck", "vip", "arp", "hooks", "eventsocket", "platform", "config", "control"},
	"elect":       {},
	"keyring":     {},
	"member":      {"elect", "keyring"},
	"control":     {"elect"},
	"config":      {"elect", "keyring"},
	"vip":         {"platform"},
	"arp":         {"platform"},
	"sipcheck":    {"eventsocket"},
	"hooks":       {"eventsocket"},
	"eventsocket": {},
	"platform":    {},
	"keepalived":  {},
	"doctor":      {"config", "control"},
}

// pure lists what elect must never import: its time and its random numbers come from
// outside.
var pure = []string{"net", "os", "sync", "io", "log", "log/slog", "syscall", "context", "math/rand", "crypto/rand", "runtime", "unsafe"}

type pkg struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func room(path string) string {
	rest, ours := strings.CutPrefix(path, module+"/")
	if !ours {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// violations returns the forbidden imports, one line each.
func violations(all []pkg) (bad []string) {
	for _, p := range all {
		from := room(p.ImportPath)
		may, known := allowed[from]
		if !known {
			if from != "cmd" && from != "test" && from != "" {
				bad = append(bad, from+" is not a room of docs/design.md §3")
			}
			continue
		}
		for _, i := range p.Imports {
			to := room(i)
			if to != "" && to != from && !slices.Contains(may, to) {
				bad = append(bad, p.ImportPath+" imports "+i)
			}
			if (from == "elect" || from == "keyring") && (slices.Contains(pure, i) || strings.Contains(i, ".")) {
				bad = append(bad, p.ImportPath+" imports "+i+", it has to stay pure")
			}
		}
	}
	return bad
}

func TestImportDirections(t *testing.T) {
	all := packages(t)
	seen := map[string]bool{}
	for _, p := range all {
		seen[room(p.ImportPath)] = true
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("room %s is missing", name)
		}
	}
	for _, b := range violations(all) {
		t.Error(b)
	}
}

// TestPlantedArrows: the check finds each planted violation.
func TestPlantedArrows(t *testing.T) {
	for _, p := range []pkg{
		{"sipalive/elect", []string{"time", "os"}},
		{"sipalive/elect", []string{"sipalive/config"}},
		{"sipalive/keyring", []string{"os"}},
		{"sipalive/elect", []string{"golang.org/x/sys/unix"}},
		{"sipalive/hooks", []string{"sipalive/elect"}},
		{"sipalive/hooks", []string{"sipalive/sipcheck"}},
		{"sipalive/vip", []string{"sipalive/arp"}},
		{"sipalive/member", []string{"sipalive/agent"}},
		{"sipalive/util", nil},
	} {
		if len(violations([]pkg{p})) != 1 {
			t.Errorf("%s importing %v was not found", p.ImportPath, p.Imports)
		}
	}
}
