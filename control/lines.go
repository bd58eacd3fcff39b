package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// lines is a continuous answer, one JSON value per line. It ends when the client goes
// away or is too slow, or when the server stops.
type lines struct {
	w        http.ResponseWriter
	rc       *http.ResponseController
	patience time.Duration // how long one write to the client may take
	end      context.CancelFunc
}

// lines begins a continuous answer, which is over when ctx ends. The caller calls l.end.
func (s *Server) lines(w http.ResponseWriter, r *http.Request) (ctx context.Context, l *lines) {
	ctx, end := context.WithCancel(r.Context())
	go func() {
		select {
		case <-s.closing:
			end()
		case <-ctx.Done():
		}
	}()
	w.Header().Set("Content-Type", "application/x-ndjson")
	return ctx, &lines{w, http.NewResponseController(w), s.write, end}
}

// writeLines sends the values at once. A client that does not read them counts as gone.
func writeLines[T any](l *lines, values ...T) {
	_ = l.rc.SetWriteDeadline(time.Now().Add(l.patience))
	for _, v := range values {
		line, err := encode(v)
		if err == nil {
			_, err = l.w.Write(line)
		}
		if err != nil {
			l.end()
			return
		}
	}
	if l.rc.Flush() != nil {
		l.end()
	}
}

// readLines calls each with every value of a continuous answer. It returns the error of
// each or of ctx, gone if the agent ended the answer, or why the answer cannot be read.
func readLines[T any](ctx context.Context, c *Client, body io.Reader, gone *NoAgent, each func(T) error) error {
	for d := json.NewDecoder(body); ; {
		var v T
		err := d.Decode(&v)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return gone
		case err != nil:
			return c.noAgent(err)
		}
		if err := each(v); err != nil {
			return err
		}
	}
}
