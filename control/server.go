package control

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
)

// These limits bound what one client may cost. The socket is open to root and one group
// only, so they guard against accidents and bugs rather than attackers.
const (
	maxConns     = 64
	maxFollowers = 16
	maxHeader    = 8 << 10
	maxBody      = 4 << 10
	readTimeout  = 3 * time.Second // for a whole request; net/http lifts the deadline once it is read
	writeTimeout = 3 * time.Second // for each piece of an answer
	askTimeout   = 2 * time.Second // for the agent's answer to a question
	doTimeout    = 2 * time.Minute // for a command; prepare actions take time
	drainTimeout = 2 * time.Second // for unfinished answers when the server stops
)

// Server answers on the control socket. Clients cost the agent only its method calls:
// each answer is complete in memory before it is written, and a client that does not read
// is dropped.
type Server struct {
	agent     Agent
	journal   *Journal
	patience  time.Duration
	write     time.Duration // writeTimeout
	ask       time.Duration // askTimeout
	do        time.Duration // doTimeout
	drain     time.Duration // drainTimeout
	followers chan struct{} // one element per follower
	lockers   chan struct{} // one element per lock client
	closing   chan struct{}
	requests  atomic.Uint64
	refused   atomic.Uint64
}

// NewServer returns a Server for the agent and its journal.
func NewServer(agent Agent, journal *Journal) *Server {
	return &Server{
		agent: agent, journal: journal, patience: patience, write: writeTimeout, ask: askTimeout, do: doTimeout, drain: drainTimeout,
		followers: make(chan struct{}, maxFollowers), lockers: make(chan struct{}, maxLockWaits), closing: make(chan struct{}),
	}
}

// Counters returns control_requests and control_refused since the start. Refused are
// requests that were malformed, too large or too many. The server adds both to the
// counters of every status.
func (s *Server) Counters() map[string]uint64 {
	return map[string]uint64{"control_requests": s.requests.Load(), "control_refused": s.refused.Load()}
}

// Serve answers until ctx ends. Then it gives unfinished answers up to two seconds; the
// answer to "stop" is one of them. It closes l. It returns nil if ctx ended, otherwise
// why the socket failed. A Server serves only once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:        s.handler(),
		ReadTimeout:    readTimeout,
		MaxHeaderBytes: maxHeader,
		ConnContext:    withUser,
		ErrorLog:       log.New(io.Discard, "", 0), // bad requests are counted
	}
	srv.SetKeepAlivesEnabled(false) // a client asks once
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(netutil.LimitListener(peers{l}, maxConns)) }()
	select {
	case err := <-failed:
		close(s.closing)
		srv.Close()
		return err
	case <-ctx.Done():
	}
	close(s.closing)
	grace, cancel := context.WithTimeout(context.Background(), s.drain)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		srv.Close()
	}
	<-failed
	return nil
}
