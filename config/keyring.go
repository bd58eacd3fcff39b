package config

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"sipalive/keyring"
)

const (
	keySize    = keyring.KeySize
	maxKeyFile = 1 << 16 // bytes; more than a thousand keys are no real keyring
)

// LoadKeyring reads the keys that encrypt the agents' messages: one base64 key of 32
// bytes per line. The first one seals, all open. Empty lines and lines that begin with #
// are skipped. The file must be regular and closed to group and others (no bit of 0077).
// No error quotes the file's contents.
func LoadKeyring(path string) (keyring.Ring, error) {
	data, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	var keys keyring.Ring
	var lines []int
	for i, line := range strings.Split(string(data), "\n") {
		text := strings.TrimSpace(line)
		if text == "" || text[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || len(key) != keySize {
			return nil, &Error{File: path, Line: i + 1, Text: "not a key of 32 bytes in base64; make one with `sipalive keygen`"}
		}
		for j, other := range keys {
			if bytes.Equal(key, other) {
				return nil, &Error{File: path, Line: i + 1, Text: fmt.Sprintf("the same key as on line %d; leave one out", lines[j])}
			}
		}
		keys, lines = append(keys, key), append(lines, i+1)
	}
	if len(keys) == 0 {
		return nil, &Error{File: path, Text: "holds no key; make one with `sipalive keygen`"}
	}
	return keys, nil
}

// readSecret checks the mode of the open file, so that it is the mode of what is read.
func readSecret(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, &Error{File: path, Text: keyOpenText(err)}
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, &Error{File: path, Text: fmt.Sprintf("cannot be read: %v", cause(err))}
	case !info.Mode().IsRegular():
		return nil, &Error{File: path, Text: "is not a regular file; put the key into one, mode 0600"}
	case info.Mode().Perm()&0o077 != 0:
		return nil, &Error{File: path, Text: fmt.Sprintf("mode %#o lets others at the key; chmod 600", info.Mode().Perm())}
	case info.Size() > maxKeyFile:
		return nil, &Error{File: path, Text: fmt.Sprintf("is larger than %d bytes; this is no keyring", maxKeyFile)}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, &Error{File: path, Text: fmt.Sprintf("cannot be read: %v", cause(err))}
	}
	return data, nil
}

func keyOpenText(err error) string {
	if os.IsNotExist(err) {
		return "no such key file; make one with `sipalive keygen`, mode 0600, the same on every node"
	}
	if os.IsPermission(err) {
		return "permission denied; the key must belong to the user the agent runs as"
	}
	return fmt.Sprintf("cannot be opened: %v", cause(err))
}

// GenerateKey draws a key of 32 bytes and returns it as a line for the key file.
func GenerateKey(random io.Reader) (string, error) {
	key := make([]byte, keySize)
	if _, err := io.ReadFull(random, key); err != nil {
		return "", fmt.Errorf("draw a key of %d bytes: %w", keySize, err)
	}
	return base64.StdEncoding.EncodeToString(key), nil
}
