package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each file of testdata/broken has one thing wrong (or several, to see which is
// reported). The exact message is in a file beside it.
func TestBroken(t *testing.T) {
	files, err := filepath.Glob("testdata/broken/*.toml")
	if err != nil || len(files) < 45 {
		t.Fatalf("only %d broken files, %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(strings.TrimSuffix(name, ".toml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(file, "toml") + "err")
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse(name, data)
			if err == nil || c != nil {
				t.Fatalf("accepted: %+v, %v", c, err)
			}
			if got := err.Error() + "\n"; got != string(want) {
				t.Errorf("got  %swant %s", got, want)
			}
		})
	}
}

// Every .err file needs its .toml file, and the reverse.
func TestBrokenPairs(t *testing.T) {
	messages, err := filepath.Glob("testdata/broken/*.err")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if _, err := os.Stat(strings.TrimSuffix(m, "err") + "toml"); err != nil {
			t.Error(err)
		}
	}
}
