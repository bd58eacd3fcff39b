package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages returns the paths of all pages written for people.
func pages(t *testing.T) (paths []string) {
	t.Helper()
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*.md"} {
		found, err := filepath.Glob(root + pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	return paths
}

// TestLinks: the file and the heading that a link points to exist.
func TestLinks(t *testing.T) {
	seen := 0
	for _, page := range pages(t) {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			seen++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: (%s): %v", page, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s: (%s): no heading has this anchor", page, m[1])
			}
		}
	}
	if seen < 30 {
		t.Errorf("%d links on all pages", seen)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// anchors returns what GitHub makes of the headings: lower-case letters, digits, hyphens
// and underscores stay, spaces become hyphens.
func anchors(text string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		kept := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(kept, " ", "-"))
	}
	return all
}

// TestDrawings: each drawing is shown on a page, is small, has a light and a dark form
// and a text for those who cannot see it, and neither runs nor loads anything.
func TestDrawings(t *testing.T) {
	drawings, err := filepath.Glob(root + "docs/drawings/*.svg")
	if err != nil || len(drawings) == 0 {
		t.Fatalf("no drawings: %v", err)
	}
	all := ""
	for _, page := range pages(t) {
		all += read(t, page)
	}
	for _, d := range drawings {
		text := read(t, d)
		if !strings.Contains(all, "](drawings/"+filepath.Base(d)+")") {
			t.Errorf("%s: no page shows it", d)
		}
		if len(text) > 8<<10 {
			t.Errorf("%s: %d bytes", d, len(text))
		}
		for _, need := range []string{"prefers-color-scheme:dark", "<title", "<desc", "viewBox="} {
			if !strings.Contains(text, need) {
				t.Errorf("%s has no %s", d, need)
			}
		}
		if bad := regexp.MustCompile(`(?i)<script|\son\w+=|<image|<foreignObject|href=|url\([^#]|@import`).FindString(text); bad != "" {
			t.Errorf("%s has %q", d, bad)
		}
	}
}
