package page

import (
	"strings"
	"testing"
)

func TestFillReplacesOneBlock(t *testing.T) {
	doc := "# Page\n\n<!-- figures: a -->\nold\n<!-- end -->\nprose\n<!-- figures: b -->\n<!-- end -->\n"
	got, err := Fill(doc, "b", "\n| x |\n\n")
	if err != nil {
		t.Fatal(err)
	}
	got, err = Fill(got, "a", "new")
	want := "# Page\n\n<!-- figures: a -->\nnew\n<!-- end -->\nprose\n<!-- figures: b -->\n| x |\n<!-- end -->\n"
	if err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestFillRefuses(t *testing.T) {
	for doc, message := range map[string]string{
		"nothing": `fill figures "a": 0 marks <!-- figures: a -->, want one`,
		"<!-- figures: a --><!-- end --><!-- figures: a --><!-- end -->": `fill figures "a": 2 marks <!-- figures: a -->, want one`,
		"<!-- figures: a --> for ever":                                   `fill figures "a": no <!-- end --> after its mark`,
		"<!-- figures: a --><!-- figures: b --><!-- end -->":             `fill figures "a": no <!-- end --> after its mark`,
	} {
		if _, err := Fill(doc, "a", "x"); err == nil || err.Error() != message {
			t.Errorf("fill %q: %v, want %s", doc, err, message)
		}
	}
}

func TestTable(t *testing.T) {
	got := Table([]string{"a", "b"}, [][]string{{"1", "2"}})
	if want := "| a | b |\n|---|---|\n| 1 | 2 |\n"; got != want {
		t.Errorf("got %s, want %s", got, strings.TrimSpace(want))
	}
}
