package main

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// TestBill: the bill of this test's own binary contains each of its modules once, and
// nothing else.
func TestBill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(self)
	if err != nil || len(info.Deps) == 0 {
		t.Fatalf("build info with no modules: %v", err)
	}
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := write(out, self, "1.2.3", "1700000000"); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two bills of one binary differ")
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(&first, cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if bom.Metadata.Timestamp != "2023-11-14T22:13:20Z" || bom.SpecVersion != cdx.SpecVersion1_6 {
		t.Errorf("time %s, version %s", bom.Metadata.Timestamp, bom.SpecVersion)
	}
	if v := bom.Metadata.Component.Version; v != "1.2.3" {
		t.Errorf("version %s", v)
	}
	if hashes := *bom.Metadata.Component.Hashes; len(hashes) != 1 || len(hashes[0].Value) != 64 {
		t.Errorf("hashes %v", hashes)
	}
	want := map[string]bool{"pkg:golang/std@" + info.GoVersion: true}
	for _, m := range info.Deps {
		want["pkg:golang/"+m.Path+"@"+m.Version] = true
	}
	for _, c := range *bom.Components {
		if !want[c.PackageURL] {
			t.Errorf("%s is in the bill: not linked, or twice", c.PackageURL)
		}
		delete(want, c.PackageURL)
	}
	for url := range want {
		t.Errorf("%s is linked and not in the bill", url)
	}
}

func TestNoBill(t *testing.T) {
	text := t.TempDir() + "/text"
	if err := os.WriteFile(text, []byte("no binary"), 0o644); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ binary, epoch, want string }{
		{text, "", "could not read Go build info"},
		{text + "-none", "", "no such file"},
		{self, "today", "want seconds since 1970"},
	} {
		if err := write(&bytes.Buffer{}, c.binary, "1.2.3", c.epoch); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %q: %v, want %q", c.binary, c.epoch, err, c.want)
		}
	}
}
