package sipcheck

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// errFraming means that the stream cannot be cut into messages from here on.
var errFraming = errors.New("no SIP message")

// messageReader cuts a stream into SIP messages. Content-Length says where a message ends
// (RFC 3261 §18.3). Empty lines may stand before one (§7.5); they are also RFC 5626's
// answer to a keepalive.
type messageReader struct {
	br *bufio.Reader
}

func newMessageReader(r io.Reader) *messageReader {
	return &messageReader{br: bufio.NewReaderSize(r, maxAnswer)}
}

// next returns one message of at most maxAnswer bytes, in memory of its own.
func (r *messageReader) next() ([]byte, error) {
	message := make([]byte, 0, 1024)
	length, blank := -1, 0
	for {
		line, err := r.br.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("%w: a line of more than %d bytes", errFraming, maxAnswer)
		case err == io.EOF && len(message)+len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		text := bytes.TrimRight(line, "\r\n")
		if len(text) == 0 && len(message) == 0 && blank < maxAnswer {
			blank += len(line)
			continue
		}
		message = append(message, line...)
		if len(message) > maxAnswer {
			return nil, fmt.Errorf("%w: a header of more than %d bytes", errFraming, maxAnswer)
		}
		if len(text) == 0 {
			return r.body(message, length)
		}
		if length, err = contentLength(text, length); err != nil {
			return nil, err
		}
	}
}

// contentLength returns the length that a header line gives, or known if it gives none.
func contentLength(line []byte, known int) (int, error) {
	name, value, found := bytes.Cut(line, []byte(":"))
	if name = bytes.TrimSpace(name); !found || !bytes.EqualFold(name, []byte("Content-Length")) && !bytes.EqualFold(name, []byte("l")) {
		return known, nil
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 31)
	if err != nil || known >= 0 && known != int(n) {
		return 0, fmt.Errorf("%w: its Content-Length makes no sense", errFraming)
	}
	return int(n), nil
}

func (r *messageReader) body(message []byte, length int) ([]byte, error) {
	switch {
	case length < 0:
		return nil, fmt.Errorf("%w: without Content-Length (RFC 3261 18.3)", errFraming)
	case len(message)+length > maxAnswer:
		return nil, fmt.Errorf("%w: longer than %d bytes", errFraming, maxAnswer)
	}
	start := len(message)
	message = append(message, make([]byte, length)...)
	if _, err := io.ReadFull(r.br, message[start:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return message, nil
}
