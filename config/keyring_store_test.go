package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sipalive/keyring"
)

func ringOf(bytesOf ...byte) (r keyring.Ring) {
	for _, b := range bytesOf {
		r = append(r, bytes.Repeat([]byte{b}, keySize))
	}
	return r
}

// TestStoreKeyring: each ring of a rotation is read back as it was stored, and the file
// keeps its mode and owner.
func TestStoreKeyring(t *testing.T) {
	path := keyFile(t, 0o400, "# the operator's word\n"+fixedKey(t, 1)+"\n")
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12345, 54321); err != nil {
			t.Fatal(err)
		}
	}
	was := ringOf(1)
	for _, next := range []keyring.Ring{ringOf(1, 2), ringOf(2, 1), ringOf(2)} {
		if err := TryKeyring(path, was); err != nil {
			t.Fatal(err)
		}
		if err := StoreKeyring(path, was, next); err != nil {
			t.Fatal(err)
		}
		got, err := LoadKeyring(path)
		if err != nil || !got.Equal(next) {
			t.Fatalf("stored %v, found %v, %v", next.View(), got.View(), err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		own := info.Sys().(*syscall.Stat_t)
		if info.Mode().Perm() != 0o400 || os.Geteuid() == 0 && (own.Uid != 12345 || own.Gid != 54321) {
			t.Errorf("%v, of %d:%d", info.Mode(), own.Uid, own.Gid)
		}
		was = next
	}
	if text, _ := os.ReadFile(path); string(text) != fixedKey(t, 2)+"\n" {
		t.Errorf("ends with %q", text)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// TestStoreKeyringThroughALink: the symbolic link stays a link.
func TestStoreKeyringThroughALink(t *testing.T) {
	path := keyFile(t, 0o600, fixedKey(t, 1))
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := StoreKeyring(link, ringOf(1), ringOf(2)); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadKeyring(path); err != nil || !got.Equal(ringOf(2)) {
		t.Errorf("%v, %v", got.View(), err)
	}
}

// TestStoreKeyringRefused: keys from an operator are not overwritten. Nothing is
// overwritten either if the directory is not writable.
func TestStoreKeyringRefused(t *testing.T) {
	path := keyFile(t, 0o600, fixedKey(t, 3)+"\n")
	for _, err := range []error{StoreKeyring(path, ringOf(1), ringOf(2)), TryKeyring(path, ringOf(1))} {
		if err == nil || err.Error() != path+": has other keys than the running agent; sipalive reload, or put the old file back" {
			t.Errorf("%v", err)
		}
	}
	if text, _ := os.ReadFile(path); string(text) != fixedKey(t, 3)+"\n" {
		t.Errorf("wrote %q", text)
	}
	if err := os.MkdirAll(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".rotating", "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := TryKeyring(path, ringOf(3)); err == nil || !strings.HasPrefix(err.Error(), path+": cannot be written: ") {
		t.Errorf("%v", err)
	}
}
