package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"sipalive/config"
)

// block is the text between two fences of a page.
type block struct {
	page, language, text string
	line                 int
}

// pageFiles returns the pages that operators read.
func pageFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(files, "../../README.md", "../../examples/README.md")
}

// pages returns the blocks of all pages.
func pages(t *testing.T) (out []block) {
	t.Helper()
	for _, f := range pageFiles(t) {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var b *block
		for i, line := range strings.Split(string(text), "\n") {
			fence, is := strings.CutPrefix(strings.TrimSpace(line), "```")
			switch {
			case is && b == nil:
				b = &block{page: filepath.Base(f), language: fence, line: i + 1}
			case is:
				out = append(out, *b)
				b = nil
			case b != nil:
				b.text += line + "\n"
			}
		}
		if b != nil {
			t.Errorf("%s:%d: a fence is not closed", f, b.line)
		}
	}
	return out
}

// TestCommandsOfThePages: the program accepts every sipalive command line on the pages:
// command, flags and number of arguments.
func TestCommandsOfThePages(t *testing.T) {
	seen := 0
	for _, b := range pages(t) {
		if b.language != "sh" { // test/docs/commands runs them
			continue
		}
		for i, line := range strings.Split(b.text, "\n") {
			for _, words := range commandLines(line) {
				seen++
				if err := taken(words); err != nil {
					t.Errorf("%s:%d: sipalive %s: %v", b.page, b.line+1+i, strings.Join(words, " "), err)
				}
			}
		}
	}
	if seen < 30 {
		t.Errorf("%d command lines on all pages", seen)
	}
}

// commandLines returns what follows `sipalive` at the start of each command on a line.
func commandLines(line string) (out [][]string) {
	line, _, _ = strings.Cut(line, "# ")
	for _, part := range regexp.MustCompile(`&&|\|\||[;|]( |$)|root@\$n|\(|\)`).Split(line, -1) {
		part, _, _ = strings.Cut(part, ">")
		part, _, _ = strings.Cut(part, "  -")
		if rest, is := strings.CutPrefix(strings.TrimSpace(part), "sipalive "); is {
			// What comes after several blanks explains the command.
			rest, _, _ = strings.Cut(rest, "   ")
			out = append(out, strings.Fields(rest))
		}
	}
	return out
}

func taken(words []string) error {
	if len(words) == 0 || strings.HasSuffix(words[0], ",") || strings.HasSuffix(words[0], ":") {
		return nil // output, such as "sipalive v1.2.3, commit ..."
	}
	cmd, rest, err := newRootCommand().Find(words)
	if err != nil {
		return err
	}
	if !cmd.HasParent() {
		return fmt.Errorf("no command %q", words[0])
	}
	if cmd.DisableFlagParsing {
		return nil
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return validArguments(cmd)
}

// TestCommandsInTheText: the program also accepts every command in a sentence or a table.
func TestCommandsInTheText(t *testing.T) {
	seen := 0
	for _, page := range pageFiles(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, m := range regexp.MustCompile("`sipalive ([^`]+)`").FindAllStringSubmatch(line, -1) {
				seen++
				words := strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(m[1]))
				err := taken(words)
				if len(words) == 1 && known(words[0]) {
					err = nil // named, not shown
				}
				if err != nil {
					t.Errorf("%s:%d: %s: %v", page, i+1, m[0], err)
				}
			}
		}
	}
	if seen < 30 {
		t.Errorf("%d commands in the text of all pages", seen)
	}
}

func known(name string) bool {
	cmd, _, err := newRootCommand().Find([]string{name})
	return err == nil && cmd.HasParent()
}

func validArguments(cmd *cobra.Command) error { return cmd.ValidateArgs(cmd.Flags().Args()) }

const (
	docsHead  = "cluster = \"c\"\nkey_file = \"/etc/sipalive/key\"\n"
	docsNodes = "[[node]]\nname = \"pbx1\"\naddress = \"192.0.2.11\"\n[[node]]\nname = \"pbx2\"\naddress = \"192.0.2.12\"\n[[node]]\nname = \"pbx3\"\naddress = \"192.0.2.13\"\n"
	docsVIP   = "[[vip]]\nname = \"vip1\"\naddress = \"192.0.2.101\"\n"
)

// TestConfigurationsOfThePages: every piece of a file on the pages can be part of a valid
// file.
func TestConfigurationsOfThePages(t *testing.T) {
	seen := 0
	for _, b := range pages(t) {
		if b.language != "toml" {
			continue
		}
		seen++
		var err error
		for _, before := range []string{"", docsHead, docsHead + docsNodes, docsHead + docsNodes + docsVIP} {
			if _, err = config.Parse(b.page, []byte(before+b.text)); err == nil {
				break
			}
		}
		if err != nil {
			t.Errorf("%s:%d: %v", b.page, b.line, err)
		}
	}
	if seen < 10 {
		t.Errorf("%d pieces of configuration on all pages", seen)
	}
}

// TestFilesOfThePages: the files that the pages copy out of the package are in the
// package.
func TestFilesOfThePages(t *testing.T) {
	seen := 0
	for _, b := range pages(t) {
		for _, name := range regexp.MustCompile(`/usr/share/doc/sipalive/(\S+)`).FindAllStringSubmatch(b.text, -1) {
			seen++
			if _, err := os.Stat("../../" + name[1]); err != nil {
				t.Errorf("%s:%d: %v", b.page, b.line, err)
			}
		}
	}
	if seen < 3 {
		t.Errorf("%d files on all pages", seen)
	}
}
