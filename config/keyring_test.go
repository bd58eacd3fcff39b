package config

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func keyFile(t *testing.T, mode fs.FileMode, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// fixedKey is one byte 32 times, in base64.
func fixedKey(t *testing.T, b byte) string {
	t.Helper()
	key, err := GenerateKey(bytes.NewReader(bytes.Repeat([]byte{b}, keySize)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestKeyring(t *testing.T) {
	one, two := fixedKey(t, 1), fixedKey(t, 2)
	text := "# new key first\r\n\r\n  " + two + "\t\r\n\n" + one
	for _, mode := range []fs.FileMode{0o600, 0o400, 0o700} {
		keys, err := LoadKeyring(keyFile(t, mode, text))
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) != 2 || !bytes.Equal(keys[0], bytes.Repeat([]byte{2}, 32)) || !bytes.Equal(keys[1], bytes.Repeat([]byte{1}, 32)) {
			t.Errorf("mode %o: %v", mode, keys)
		}
	}
}

func TestKeyringRefused(t *testing.T) {
	key := fixedKey(t, 1)
	const bad = "not a key of 32 bytes in base64; make one with `sipalive keygen`"
	for name, c := range map[string]struct {
		mode       fs.FileMode
		text, want string
	}{
		"group":     {0o640, key, ": mode 0640 lets others at the key; chmod 600"},
		"others":    {0o604, key, ": mode 0604 lets others at the key; chmod 600"},
		"search":    {0o610, key, ": mode 0610 lets others at the key; chmod 600"},
		"writable":  {0o602, key, ": mode 0602 lets others at the key; chmod 600"},
		"empty":     {0o600, "", ": holds no key; make one with `sipalive keygen`"},
		"comments":  {0o600, "# none\n\n", ": holds no key; make one with `sipalive keygen`"},
		"short":     {0o600, "c2VjcmV0\n", ":1: " + bad},
		"long":      {0o600, key + "\n" + strings.TrimRight(key, "=") + "AAAA\n", ":2: " + bad},
		"no base64": {0o600, "# x\nhunter2 hunter2\n", ":2: " + bad},
		"url":       {0o600, strings.Repeat("-", 43) + "=\n", ":1: " + bad},
		"bits":      {0o600, strings.Repeat("A", 42) + "B=\n", ":1: " + bad},
		"binary":    {0o600, strings.Repeat("\x00", 32), ":1: " + bad},
		"twice":     {0o600, "\n" + key + "\n" + key + "\n", ":3: the same key as on line 2; leave one out"},
		"huge":      {0o600, strings.Repeat("#\n", maxKeyFile), ": is larger than 65536 bytes; this is no keyring"},
	} {
		path := keyFile(t, c.mode, c.text)
		keys, err := LoadKeyring(path)
		if err == nil || keys != nil || err.Error() != path+c.want {
			t.Errorf("%s: got  %v\nwant %s%s", name, err, path, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), key)) {
			t.Errorf("%s: the message quotes the file", name)
		}
	}
}

func TestKeyringNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such key file; make one with `sipalive keygen`, mode 0600, the same on every node",
		dir:                        "is not a regular file; put the key into one, mode 0600",
		fifo:                       "is not a regular file; put the key into one, mode 0600",
	} {
		if _, err := LoadKeyring(path); err == nil || err.Error() != path+": "+want {
			t.Errorf("got  %v\nwant %s: %s", err, path, want)
		}
	}
}

func TestGenerateKey(t *testing.T) {
	one, err := GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	two, err := GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := LoadKeyring(keyFile(t, 0o600, one+"\n"+two+"\n")); err != nil || len(keys) != 2 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	key, err := GenerateKey(strings.NewReader("too short"))
	if key != "" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short read made %q, %v", key, err)
	}
}
