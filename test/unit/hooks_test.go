package unit

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const hooksUnitFile = "../../dist/systemd/sipalive-hooks.service"

// TestVerifyHooks lets systemd verify the hooks unit, with a program that exists here.
func TestVerifyHooks(t *testing.T) {
	text, err := os.ReadFile(hooksUnitFile)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "sipalive-hooks.service")
	changed := strings.Replace(string(text), "/usr/bin/sipalive", "/bin/true", 1)
	if changed == string(text) {
		t.Fatal("the unit does not start /usr/bin/sipalive")
	}
	if err := os.WriteFile(copied, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", copied).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
