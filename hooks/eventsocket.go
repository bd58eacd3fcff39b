package hooks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

const (
	frameLineMax  = 16 << 10 // one header line
	frameLinesMax = 64       // header lines, empty ones before them included
	bodyKept      = 64 << 10
	bodyMax       = 8 << 20 // a Content-Length above this is not read at all
)

// Content types of the event socket (FreeSWITCH mod_event_socket). Recordings of
// a 1.11.1 are in testdata.
const (
	typeAuthRequest  = "auth/request"
	typeCommandReply = "command/reply"
	typeAPIResponse  = "api/response"
	typeDisconnect   = "text/disconnect-notice"
	typeRude         = "text/rude-rejection" // the client's address is not in the ACL
)

// frame is one message of FreeSWITCH: headers, and a body if Content-Length says so.
type frame struct {
	contentType string
	replyText   string
	body        []byte // at most bodyKept
	cut         int    // bytes of the body that were read and dropped
}

// asynchronous frames come between a command and its answer, asked for or not.
func (f frame) asynchronous() bool {
	return strings.HasPrefix(f.contentType, "text/event-") || f.contentType == "log/data"
}

var errNotEventSocket = errors.New("not an event socket's answer")

// readFrame reads the next frame. The error is io.EOF only between frames.
func readFrame(br *bufio.Reader) (frame, error) {
	f, length, err := readHeader(br)
	if err != nil {
		return frame{}, err
	}
	if length > bodyMax {
		return frame{}, fmt.Errorf("an answer of %d bytes is too long (at most %d)", length, bodyMax)
	}
	f.body = make([]byte, min(length, bodyKept))
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

// readLine reads a line without its end. A line cut off by the end of the
// connection is io.ErrUnexpectedEOF, nothing at all is io.EOF.
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

// eventSocket is a connection to FreeSWITCH that carries one command at a time.
// After any error it is of no use: what arrives next could be the answer to an
// earlier command.
type eventSocket struct {
	conn net.Conn
	br   *bufio.Reader
	stop func() bool
}

// openEventSocket connects and logs in. Everything on the connection ends at the
// end of ctx: a frozen FreeSWITCH accepts the connection and never sends a byte.
func openEventSocket(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), address, password string) (*eventSocket, error) {
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s := &eventSocket{conn: conn, br: bufio.NewReaderSize(conn, frameLineMax)}
	s.stop = context.AfterFunc(ctx, func() { conn.Close() })
	if err := s.login(password); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *eventSocket) close() {
	s.stop()
	s.conn.Close()
}

func (s *eventSocket) login(password string) error {
	greeting, err := s.read()
	if err != nil {
		return err
	}
	if greeting.contentType != typeAuthRequest {
		return fmt.Errorf("%w: %q instead of a greeting", errNotEventSocket, oneLine(greeting.contentType))
	}
	reply, err := s.command("auth " + password)
	if err != nil {
		return err
	}
	if reply.contentType != typeCommandReply || !strings.HasPrefix(reply.replyText, "+OK") {
		return fmt.Errorf("the password is not accepted (%s): see password_file and event_socket.conf.xml", oneLine(reply.replyText))
	}
	return nil
}

// command sends one line and returns the answer to it.
func (s *eventSocket) command(line string) (frame, error) {
	if _, err := io.WriteString(s.conn, line+"\n\n"); err != nil {
		return frame{}, err
	}
	f, err := s.read()
	if err == nil && f.contentType != typeCommandReply && f.contentType != typeAPIResponse {
		err = fmt.Errorf("%w: %q instead of a reply", errNotEventSocket, oneLine(f.contentType))
	}
	return f, err
}

// read returns the next frame that is not asynchronous; a farewell is an error.
func (s *eventSocket) read() (frame, error) {
	for {
		f, err := readFrame(s.br)
		switch {
		case err == io.EOF:
			return f, errors.New("FreeSWITCH closed the connection")
		case errors.Is(err, io.ErrUnexpectedEOF):
			return f, errors.New("FreeSWITCH closed the connection in the middle of an answer")
		case err != nil:
			return f, err
		case f.contentType == typeDisconnect:
			return f, errors.New("FreeSWITCH ended the session")
		case f.contentType == typeRude:
			return f, errors.New("FreeSWITCH refuses this address (apply-inbound-acl in event_socket.conf.xml)")
		case !f.asynchronous():
			return f, nil
		}
	}
}
