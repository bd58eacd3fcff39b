package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

// WaitCalls is a drain that waits for calls to end.
type WaitCalls struct {
	Wait     time.Duration // at most
	MaxCalls int           // how many calls may be left
}

// CallsLeft is the progress of such a drain.
type CallsLeft struct {
	Calls int    `json:"calls"`
	Left  Millis `json:"left_ms"`        // until the time is up
	Text  string `json:"text,omitempty"` // why the number of calls is unknown now
}

// maxWait is the longest a drain may wait.
const maxWait = 24 * time.Hour

const maxCalls = 1_000_000

// drainLine is one line of the answer: progress or, on the last line, the outcome.
type drainLine struct {
	*CallsLeft
	Outcome *string `json:"outcome,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// drainWaiting reports the drain's progress, one JSON object per line. It ends the drain
// when the client goes away or the server stops.
func (s *Server) drainWaiting(w http.ResponseWriter, r *http.Request) (any, error) {
	query := r.URL.Query()
	millis, err := strconv.ParseInt(query.Get("wait_ms"), 10, 64)
	if wait := time.Duration(millis) * time.Millisecond; err != nil || millis < 0 || millis > maxWait.Milliseconds() || wait < 0 {
		return nil, refuse(http.StatusBadRequest, "drain: wait_ms has to be a number of milliseconds up to %s", maxWait)
	}
	calls, err := strconv.Atoi(query.Get("max_calls"))
	if err != nil || calls < 0 || calls > maxCalls {
		return nil, refuse(http.StatusBadRequest, "drain: max_calls has to be a number from 0 to %d", maxCalls)
	}
	ctx, out := s.lines(w, r)
	defer out.end()
	text, err := s.agent.DrainQuietly(ctx, WaitCalls{time.Duration(millis) * time.Millisecond, calls}, func(p CallsLeft) { writeLines(out, drainLine{CallsLeft: &p}) })
	last := drainLine{Outcome: &text}
	if err != nil {
		last.Error = oneLine(err.Error())
	}
	writeLines(out, last)
	return nil, nil
}

// DrainQuietly drains the agent's node once its calls have ended, and calls progress
// about once a second. If ctx ends before the move, nothing is moved; the agent has the
// last word on whether it was.
func (c *Client) DrainQuietly(ctx context.Context, w WaitCalls, progress func(CallsLeft)) (string, error) {
	ctx, end := c.untilLastWord(ctx)
	defer end()
	query := url.Values{"wait_ms": {strconv.FormatInt(w.Wait.Milliseconds(), 10)}, "max_calls": {strconv.Itoa(w.MaxCalls)}}
	body, err := c.roundTrip(ctx, http.MethodPost, pathDrain, query, nil)
	if err != nil {
		return "", err
	}
	defer body.Close()
	for d := json.NewDecoder(io.LimitReader(body, maxAnswer)); ; {
		var l drainLine
		if err := d.Decode(&l); err != nil {
			return "", c.noAgent(err)
		}
		switch {
		case l.Error != "":
			return "", errors.New(oneLine(l.Error))
		case l.Outcome != nil:
			return oneLine(*l.Outcome), nil
		case l.CallsLeft != nil:
			l.Text = oneLine(l.Text)
			progress(*l.CallsLeft)
		}
	}
}

// untilLastWord returns a context for a request that outlives ctx. When ctx ends, the
// connection is closed for writing, which tells the agent. The answer is still read, for
// as long as a command may take.
func (c *Client) untilLastWord(ctx context.Context) (request context.Context, end context.CancelFunc) {
	request, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var conn atomic.Value
	request = httptrace.WithClientTrace(request, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { conn.Store(got.Conn) }})
	forget := context.AfterFunc(ctx, func() {
		half, connected := conn.Load().(interface{ CloseWrite() error })
		if !connected || half.CloseWrite() != nil {
			cancel()
			return
		}
		select {
		case <-time.After(c.do):
			cancel()
		case <-request.Done():
		}
	})
	return request, func() { forget(); cancel() }
}
