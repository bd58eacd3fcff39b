package docs

import (
	"go/ast"
	"os"
	"strings"
	"testing"
)

// TestWireVersion: docs/upgrade.md names the version of the agents' packets.
func TestWireVersion(t *testing.T) {
	version := ""
	each(t, "member/codec.go", func(n ast.Node) {
		if v, is := n.(*ast.ValueSpec); is && v.Names[0].Name == "version" {
			version = v.Values[0].(*ast.BasicLit).Value
		}
	})
	doc, err := os.ReadFile(root + "docs/upgrade.md")
	if err != nil {
		t.Fatal(err)
	}
	if say := "packets have a version, " + version + " in this one"; version == "" || !strings.Contains(string(doc), say) {
		t.Errorf("docs/upgrade.md does not say %q (and CHANGELOG.md has to say what an upgrade to it takes)", say)
	}
}
