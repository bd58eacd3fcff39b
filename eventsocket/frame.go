package eventsocket

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	frameLineMax  = 16 << 10 // bytes of one header line
	frameLinesMax = 64       // header lines, including empty ones before them
	bodyKept      = 64 << 10 // bytes kept of an answer for people
	bodyMax       = 8 << 20  // an answer with a larger Content-Length is not read
)

// Content types of the event socket (FreeSWITCH mod_event_socket). Package recorded has
// recordings of version 1.11.1.
const (
	typeAuthRequest  = "auth/request"
	typeCommandReply = "command/reply"
	typeAPIResponse  = "api/response"
	typeDisconnect   = "text/disconnect-notice"
	typeRude         = "text/rude-rejection" // the client's address is not in the ACL
)

// frame is one message from FreeSWITCH: headers, and a body if there is a Content-Length.
type frame struct {
	contentType string
	replyText   string
	body        []byte // at most as much as the caller keeps
	cut         int    // bytes of the body that were read and dropped
}

// asynchronous reports whether the frame is no answer to a command: such frames may come
// between a command and its answer.
func (f frame) asynchronous() bool {
	return strings.HasPrefix(f.contentType, "text/event-") || f.contentType == "log/data"
}

var errNotEventSocket = errors.New("not an event socket's answer")

// readFrame reads the next frame and keeps at most keep bytes of its body. It returns
// io.EOF only between frames.
func readFrame(br *bufio.Reader, keep int) (frame, error) {
	f, length, err := readHeader(br)
	if err != nil {
		return frame{}, err
	}
	if length > bodyMax {
		return frame{}, fmt.Errorf("an answer of %d bytes is too long (at most %d)", length, bodyMax)
	}
	f.body = make([]byte, min(length, keep))
	if _, err := io.ReadFull(br, f.body); err != nil {
		return frame{}, cutOff(err)
	}
	f.cut = length - len(f.body)
	if _, err := io.CopyN(io.Discard, br, int64(f.cut)); err != nil {
		return frame{}, cutOff(err)
	}
	return f, nil
}

func readHeader(br *bufio.Reader) (f frame, length int, err error) {
	begun := false
	for range frameLinesMax {
		line, err := readLine(br)
		if err == io.EOF && !begun {
			return f, 0, io.EOF
		}
		if err != nil {
			return f, 0, cutOff(err)
		}
		if line == "" {
			if begun {
				return f, length, f.complete()
			}
			continue
		}
		begun = true
		if length, err = f.header(line, length); err != nil {
			return f, 0, err
		}
	}
	return f, 0, fmt.Errorf("%w: more than %d header lines", errNotEventSocket, frameLinesMax)
}

func (f *frame) complete() error {
	if f.contentType == "" {
		return fmt.Errorf("%w: no Content-Type", errNotEventSocket)
	}
	return nil
}

// header takes one header line and returns the body's length as known so far.
func (f *frame) header(line string, length int) (int, error) {
	name, value, found := strings.Cut(line, ":")
	if !found {
		return 0, fmt.Errorf("%w: %q", errNotEventSocket, oneLine(line))
	}
	value = strings.TrimSpace(value)
	switch {
	case strings.EqualFold(name, "Content-Type"):
		f.contentType = value
	case strings.EqualFold(name, "Reply-Text"):
		f.replyText = value
	case strings.EqualFold(name, "Content-Length"):
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return 0, fmt.Errorf("%w: Content-Length %q", errNotEventSocket, oneLine(value))
		}
		return int(n), nil
	}
	return length, nil
}

// readLine reads a line without its end. If the connection ends within a line the error
// is io.ErrUnexpectedEOF, before any byte it is io.EOF.
func readLine(br *bufio.Reader) (string, error) {
	line, err := br.ReadSlice('\n')
	switch {
	case err == nil:
		return strings.TrimRight(string(line), "\r\n"), nil
	case errors.Is(err, bufio.ErrBufferFull):
		return "", fmt.Errorf("%w: a line of more than %d bytes", errNotEventSocket, br.Size())
	case err == io.EOF && len(line) > 0:
		return "", io.ErrUnexpectedEOF
	}
	return "", err
}

func cutOff(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
