package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// NoAgent is the error when no agent answers at a socket. The commands exit with code 3
// on it (docs/design.md §8).
type NoAgent struct {
	Socket string
	Why    error
	Advice string
}

func (e *NoAgent) Error() string {
	return fmt.Sprintf("ask the agent at %s: %v (%s)", e.Socket, e.Why, e.Advice)
}

func (e *NoAgent) Unwrap() error { return e.Why }

const (
	dialTimeout   = 2 * time.Second
	clientTimeout = askTimeout + 3*time.Second // longer than the server's own timeout, whose error says more
	maxAnswer     = 16 << 20                   // bytes
)

const (
	adviceLog   = "see its log: journalctl -u sipalive"
	adviceOther = "is this sipalive's socket?"
)

var errPath = errors.New("path longer than a unix socket's may be")

// Client talks to the agent of one runtime directory. Its methods return *NoAgent if no
// agent answers, otherwise the agent's own one-line error.
type Client struct {
	socket string
	http   *http.Client
	ask    time.Duration
	do     time.Duration
}

// NewClient returns a Client for the socket in runDir.
func NewClient(runDir string) *Client {
	socket := filepath.Join(runDir, SocketName)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		if len(socket) > maxPath {
			return nil, errPath
		}
		d := net.Dialer{Timeout: dialTimeout}
		return d.DialContext(ctx, "unix", socket)
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true}
	return &Client{socket: socket, http: &http.Client{Transport: transport}, ask: clientTimeout, do: doTimeout + clientTimeout}
}

// Status returns the agent's status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	return st, c.get(ctx, pathStatus, nil, &st)
}

// StatusJSON returns the agent's status as the agent sent it, on one line. Fields that
// this client does not know are kept.
func (c *Client) StatusJSON(ctx context.Context) ([]byte, error) {
	var raw json.RawMessage
	err := c.get(ctx, pathStatus, nil, &raw)
	return append(raw, '\n'), err
}

// Plan returns who would hold what without these nodes.
func (c *Client) Plan(ctx context.Context, without []string) (Plan, error) {
	var p Plan
	return p, c.get(ctx, pathPlan, url.Values{"without": without}, &p)
}

// Events returns the newest n events, oldest first. An n above what an agent keeps
// returns all of them.
func (c *Client) Events(ctx context.Context, n int) ([]Event, error) {
	var events []Event
	return events, c.get(ctx, pathEvents, url.Values{"n": {strconv.Itoa(min(n, maxEvents))}}, &events)
}

// Follow calls show for the newest n events, then for each new event. A takeover that
// takes long is shown twice: unfinished, and again when it is complete. Follow returns
// nil when ctx ends, *NoAgent when the agent goes away, or the error of show.
func (c *Client) Follow(ctx context.Context, n int, show func(Event) error) error {
	query := url.Values{"n": {strconv.Itoa(min(n, maxEvents))}, "follow": {"1"}}
	body, err := c.roundTrip(ctx, http.MethodGet, pathEvents, query, nil)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer body.Close()
	gone := &NoAgent{c.socket, errors.New("it ended, or dropped a reader that was too slow"), "follow again once it runs"}
	if err := readLines(ctx, c, body, gone, show); err != ctx.Err() {
		return err
	}
	return nil
}

// Do sends a command to the agent and returns its outcome in words.
func (c *Client) Do(ctx context.Context, cmd Command) (string, error) {
	if err := cmd.check(); err != nil {
		return "", err
	}
	request, err := encode(cmd)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, c.do)
	defer cancel()
	var out outcome
	err = c.exchange(ctx, http.MethodPost, pathCommand, nil, request, &out)
	return out.Text, err
}

// Flush makes every node run its flush actions. Only the actions' timeouts limit its
// duration, which may be hours. So it first asks for the status, to find out early
// whether an agent answers at all.
func (c *Client) Flush(ctx context.Context) ([]FlushResult, error) {
	if _, err := c.Status(ctx); err != nil {
		return nil, err
	}
	var results []FlushResult
	return results, c.exchange(ctx, http.MethodPost, pathFlush, nil, nil, &results)
}

func (c *Client) get(ctx context.Context, path string, query url.Values, doc any) error {
	ctx, cancel := context.WithTimeout(ctx, c.ask)
	defer cancel()
	return c.exchange(ctx, http.MethodGet, path, query, nil, doc)
}

func (c *Client) exchange(ctx context.Context, method, path string, query url.Values, request []byte, doc any) error {
	body, err := c.roundTrip(ctx, method, path, query, request)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(doc); err != nil {
		return c.noAgent(err)
	}
	return nil
}

// roundTrip returns the body of a 200 answer, otherwise the agent's error.
func (c *Client) roundTrip(ctx context.Context, method, path string, query url.Values, request []byte) (io.ReadCloser, error) {
	target := url.URL{Scheme: "http", Host: "sipalive", Path: path, RawQuery: query.Encode()}
	r, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.noAgent(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var f failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&f); err != nil || f.Error == "" {
		return nil, &NoAgent{c.socket, fmt.Errorf("it answers %s", resp.Status), adviceOther}
	}
	if resp.StatusCode == http.StatusGatewayTimeout {
		return nil, &NoAgent{c.socket, errors.New(oneLine(f.Error)), adviceLog}
	}
	return nil, errors.New(oneLine(f.Error))
}

// noAgent says why nobody answered, and what to do about it.
func (c *Client) noAgent(err error) error {
	e := &NoAgent{Socket: c.socket, Why: cause(err), Advice: "does it run? systemctl status sipalive; elsewhere? --run-dir"}
	var timeout interface{ Timeout() bool }
	var through *url.Error
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, fs.ErrPermission):
		e.Advice = "be root, or in the group of [control]"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, errPath):
		e.Why = errPath
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		e.Why = errors.New("it ended before it had answered")
	case errors.As(err, &timeout) && timeout.Timeout():
		e.Why, e.Advice = errors.New("no answer in time"), adviceLog
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("ask the agent at %s: interrupted: %w (it may still carry a command out)", c.socket, context.Canceled)
	case errors.As(err, &through), errors.As(err, &syntax):
		e.Why, e.Advice = errors.New("what answers there does not speak sipalive's HTTP"), adviceOther
	}
	return e
}
