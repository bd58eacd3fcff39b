package config

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The digest of the home example. It changes when a field of Config is added, renamed or
// dropped. Then nodes of both versions show "different config" during the upgrade, and
// the changelog has to say so.
func TestDigestOfHome(t *testing.T) {
	c, err := Load("testdata/home.toml")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Digest(), uint64(0x730e508c952396b2); got != want {
		t.Errorf("digest %#x, was %#x", got, want)
	}
	c.File = "elsewhere.toml"
	if got, want := c.Digest(), uint64(0x730e508c952396b2); got != want {
		t.Error("the file's name is in the digest")
	}
}

// blocks splits the reference at its headers and drops comments.
func blocks() [][]string {
	out := [][]string{nil}
	for line := range strings.Lines(string(Reference())) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
			continue
		case line[0] == '[':
			out = append(out, []string{line})
			continue
		}
		if code, _, found := strings.Cut(line, "  #"); found {
			line = strings.TrimSpace(code)
		}
		out[len(out)-1] = append(out[len(out)-1], line)
	}
	return out
}

// Comments, the order of keys in a table, space, quotes and units do not change the
// digest.
func TestDigestIgnoresSpelling(t *testing.T) {
	want := mustParse(t, Reference()).Digest()
	respell := strings.NewReplacer(`"200ms"`, `"0.2s"`, `"1m"`, `'60s'`, `"10s"`, `"10000ms"`, "7946", "0x1f0a", `"main"`, `'main'`, " = ", "=")
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		for i, block := range blocks() {
			keys := block
			if i > 0 {
				b.WriteString(block[0] + " # a table\r\n")
				keys = block[1:]
			}
			for _, line := range rapid.Permutation(keys).Draw(t, "keys") {
				if rapid.Bool().Draw(t, "respell") {
					line = respell.Replace(line)
				}
				b.WriteString(line + " # a key\n\n")
			}
		}
		c, err := Parse("other.toml", []byte(b.String()))
		if err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
		if c.Digest() != want {
			t.Fatalf("another digest for\n%s", b.String())
		}
	})
}

// The order counts where it breaks ties.
func TestDigestSeesOrder(t *testing.T) {
	a := "[[node]]\nname = \"a\"\naddress = \"127.0.0.2\"\n"
	b := "[[node]]\nname = \"b\"\naddress = \"127.0.0.3\"\n"
	one, other := mustParse(t, []byte(minimal+a+b)), mustParse(t, []byte(minimal+b+a))
	if one.Digest() == other.Digest() {
		t.Error("the order of nodes is not in the digest")
	}
}
