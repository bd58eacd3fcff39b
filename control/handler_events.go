package control

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// maxEvents limits one answer. By default a journal keeps no more.
const maxEvents = DefaultEvents

// maxTakeovers is how many takeovers a status has. The status page draws as many.
const maxTakeovers = 12

// events answers with the newest n events. With follow=1 it keeps sending new ones, one
// JSON object per line.
func (s *Server) events(w http.ResponseWriter, r *http.Request) (any, error) {
	query := r.URL.Query()
	n, err := strconv.Atoi(query.Get("n"))
	if err != nil || n < 0 || n > maxEvents {
		return nil, refuse(http.StatusBadRequest, "events: n has to be a number from 0 to %d", maxEvents)
	}
	if query.Get("follow") == "" {
		return s.journal.Last(n), nil
	}
	select {
	case s.followers <- struct{}{}:
		defer func() { <-s.followers }()
	default:
		return nil, refuse(http.StatusServiceUnavailable, "follow events: %d others follow already (end one)", maxFollowers)
	}
	s.follow(w, r, n)
	return nil, nil
}

// follow writes events until the client goes away or the server stops.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, n int) {
	ctx, out := s.lines(w, r)
	defer out.end()
	f := follower{patience: s.patience}
	events, since := s.journal.opening(n, 0)
	for ctx.Err() == nil {
		now := time.Now()
		show := f.see(now, events)
		late, next := f.due(now)
		writeLines(out, append(show, late...)...)
		wait, stop := ctx, context.CancelFunc(func() {})
		if next > 0 {
			wait, stop = context.WithTimeout(ctx, next)
		}
		events, since, _ = s.journal.wait(wait, since)
		stop()
	}
}
