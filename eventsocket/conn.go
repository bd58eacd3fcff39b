// Package eventsocket is a small client of FreeSWITCH's event socket (mod_event_socket).
// It dials, logs in and sends one command at a time. Everything ends with a context. Do
// not use a connection after an error: the next answer could belong to an earlier
// command.
package eventsocket

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// Client says where the event socket is and how to log in.
type Client struct {
	// Address is host:port, e.g. 127.0.0.1:8021.
	Address string
	// Password is called at each Open, so that a changed password file takes effect.
	Password func() (string, error)
	// Dial opens the connection; nil means net.Dialer.DialContext.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Conn is a logged-in connection to FreeSWITCH that carries one command at a time. After
// any error of API or Whole except a *Refusal, close it.
type Conn struct {
	conn net.Conn
	br   *bufio.Reader
	stop func() bool
}

// Refusal is one line in which FreeSWITCH says that a command failed. The connection can
// carry the next command.
type Refusal struct{ Line string }

func (r *Refusal) Error() string { return r.Line }

// Open connects and logs in. The connection closes when ctx ends: a frozen FreeSWITCH
// accepts the connection and never sends a byte.
func (c Client) Open(ctx context.Context) (*Conn, error) {
	password, err := c.password()
	if err != nil {
		return nil, err
	}
	dial := c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", c.Address)
	if err != nil {
		return nil, cause(err)
	}
	s := &Conn{conn: conn, br: bufio.NewReaderSize(conn, frameLineMax)}
	s.stop = context.AfterFunc(ctx, func() { conn.Close() })
	if err := s.login(password); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (c Client) password() (string, error) {
	if c.Password == nil {
		return "", errors.New("no password (set password_file under [freeswitch])")
	}
	password, err := c.Password()
	if err != nil {
		return "", fmt.Errorf("no password: %s", oneLine(err.Error()))
	}
	password = strings.TrimSpace(password)
	if password == "" || strings.ContainsAny(password, "\r\n\x00") {
		return "", errors.New("the password is not one line of text (see password_file)")
	}
	return password, nil
}

// cause leaves out the addresses that net puts before its errors. If the dial failed, it
// adds what to look at.
func cause(err error) error {
	var op *net.OpError
	switch {
	case !errors.As(err, &op):
		return err
	case op.Op == "dial":
		return fmt.Errorf("%w (is FreeSWITCH running, mod_event_socket loaded?)", op.Err)
	}
	return op.Err
}

// Close ends the connection.
func (s *Conn) Close() {
	s.stop()
	s.conn.Close()
}

func (s *Conn) login(password string) error {
	greeting, err := s.read(bodyKept)
	if err != nil {
		return err
	}
	if greeting.contentType != typeAuthRequest {
		return fmt.Errorf("%w: %q instead of a greeting", errNotEventSocket, oneLine(greeting.contentType))
	}
	reply, err := s.command("auth "+password, bodyKept)
	if err != nil {
		return err
	}
	if reply.contentType != typeCommandReply || !strings.HasPrefix(reply.replyText, "+OK") {
		return fmt.Errorf("the password is not accepted (%s): see password_file and event_socket.conf.xml", oneLine(reply.replyText))
	}
	return nil
}

// API sends one API command, one line, and judges the answer. text is what FreeSWITCH
// said, at most 64 KiB, even if the command failed. err is a *Refusal if FreeSWITCH said
// no, otherwise the connection's error.
func (s *Conn) API(command string) (text string, err error) {
	return s.api(command, bodyKept)
}

// Whole is like API, for answers that a program reads: nothing is cut. An answer of more
// than 8 MiB is an error.
func (s *Conn) Whole(command string) (text string, err error) {
	return s.api(command, bodyMax)
}

func (s *Conn) api(command string, keep int) (text string, err error) {
	f, err := s.command("api "+command, keep)
	if err != nil {
		return "", err
	}
	if f.contentType != typeAPIResponse {
		return f.replyText, &Refusal{oneLine(f.replyText)} // mod_event_socket itself refused the command
	}
	return string(f.body), judge(string(f.body))
}

// command sends one line and returns its answer.
func (s *Conn) command(line string, keep int) (frame, error) {
	if _, err := io.WriteString(s.conn, line+"\n\n"); err != nil {
		return frame{}, cause(err)
	}
	f, err := s.read(keep)
	if err == nil && f.contentType != typeCommandReply && f.contentType != typeAPIResponse {
		err = fmt.Errorf("%w: %q instead of a reply", errNotEventSocket, oneLine(f.contentType))
	}
	return f, err
}

// read returns the next frame that is not asynchronous. A disconnect notice is an error.
func (s *Conn) read(keep int) (frame, error) {
	for {
		f, err := readFrame(s.br, keep)
		switch {
		case err == io.EOF:
			return f, errors.New("FreeSWITCH closed the connection")
		case errors.Is(err, io.ErrUnexpectedEOF):
			return f, errors.New("FreeSWITCH closed the connection in the middle of an answer")
		case err != nil:
			return f, cause(err)
		case f.contentType == typeDisconnect:
			return f, errors.New("FreeSWITCH ended the session")
		case f.contentType == typeRude:
			return f, errors.New("FreeSWITCH refuses this address (apply-inbound-acl in event_socket.conf.xml)")
		case !f.asynchronous():
			return f, nil
		}
	}
}
