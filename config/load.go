package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
)

const (
	// maxFile is the largest file read, in bytes. 64 nodes and 256 VIPs with four actions
	// each take 200 kB.
	maxFile = 1 << 20
	// maxKeys is how many keys one table may have; no table of the schema has 20. go-toml
	// compares each key with all before it: a megabyte of keys took 20 s of a core.
	maxKeys = 64
	// maxParts is how many parts one dotted key or header may have; none of the schema
	// has more than three. A megabyte of parts took 400 MB and most of a second.
	maxParts = 16
)

// maxText limits a message, in characters, whatever it quotes. The last maxTail
// characters, with the advice, stay.
const (
	maxText = 400
	maxTail = 120
)

// Error is what is wrong with a file, on one line.
type Error struct {
	File string
	Line int // from 1; 0: the file as a whole
	Text string

	advice  func() string // for an unknown key: the end of Text; computed late, since it costs too much for errors that nobody sees
	missing bool          // something is missing, so Line is only that of its table
}

func (e *Error) Error() string {
	text := printable(e.Text)
	if r := []rune(text); len(r) > maxText {
		text = string(r[:maxText-maxTail]) + " ... " + string(r[len(r)-maxTail:])
	}
	if e.Line == 0 {
		return printable(e.File) + ": " + text
	}
	return printable(e.File) + ":" + strconv.Itoa(e.Line) + ": " + text
}

// Load reads and checks a file.
func Load(path string) (*Config, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Parse checks the contents of a file; the file name is for messages. Of several errors
// it returns the one on the lowest line.
func Parse(file string, data []byte) (*Config, error) {
	if err := checkText(data); err != nil {
		err.File = file
		return nil, err
	}
	at, excess := positions(data)
	if excess != nil {
		excess.File = file
		return nil, excess
	}
	var values map[string]any
	if err := toml.Unmarshal(data, &values); err != nil {
		return nil, syntaxError(file, err)
	}
	if len(values) == 0 {
		return nil, &Error{File: file, Text: "the file is empty; `sipalive reference` prints every key"}
	}
	d := newDecoder(values, at)
	cfg := d.config()
	if first := d.first(); first != nil {
		first.File = file
		return nil, first
	}
	cfg.File = file
	return cfg, nil
}

// read does not wait for the writer of a FIFO, and reads no more than maxFile+1 bytes.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, &Error{File: path, Text: openText(err)}
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, &Error{File: path, Text: "is a directory; name the file in it"}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, &Error{File: path, Text: fmt.Sprintf("cannot be read: %v", cause(err))}
	}
	return data, nil
}

func openText(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "no such file; name it with -c, or start from `sipalive reference`"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied; run as root or as the agent's user"
	default:
		return fmt.Sprintf("cannot be opened: %v", cause(err))
	}
}

// cause leaves out the path, because the message already begins with it.
func cause(err error) error {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// checkText refuses files that are not worth parsing.
func checkText(data []byte) *Error {
	if len(data) > maxFile {
		return &Error{Text: fmt.Sprintf("the file is larger than %d bytes; this is not a sipalive configuration", maxFile)}
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return &Error{Line: 1, Text: "the file begins with a byte order mark; save it as UTF-8 without one"}
	}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			line := 1 + bytes.Count(data[:i], []byte("\n"))
			return &Error{Line: line, Text: fmt.Sprintf("byte 0x%02x is not UTF-8; save the file as UTF-8", data[i])}
		}
		i += size
	}
	return nil
}

func syntaxError(file string, err error) error {
	e := &Error{File: file, Text: "not valid TOML: " + strings.TrimPrefix(err.Error(), "toml: ")}
	if de := (*toml.DecodeError)(nil); errors.As(err, &de) {
		e.Line, _ = de.Position()
	}
	return e
}

// printable keeps a message on one line, whatever the file or its name contains.
func printable(s string) string {
	clean := func(r rune) bool { return !unicode.IsPrint(r) }
	if strings.IndexFunc(s, clean) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if clean(r) || r == utf8.RuneError {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
