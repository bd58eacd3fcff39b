package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
	"unicode"

	"sipalive/elect"
)

// LockRequest is a client's request for a lock.
type LockRequest struct {
	Name string `json:"name"`
	// Keep, if not 0, keeps the lock across a reboot of this node, for at most this long.
	// It ends earlier once the shell line Until succeeds there.
	Keep  Millis `json:"keep_ms,omitempty"`
	Until string `json:"until,omitempty"`
}

// LockLevel is the state of a client's lock. Each one replaces the one before.
type LockLevel struct {
	ID      uint64        `json:"id"`             // of this client
	Node    string        `json:"node,omitempty"` // the node that answers
	Waiting string        `json:"waiting,omitempty"`
	Epoch   uint64        `json:"epoch,omitempty"`  // not 0: the lock is held under this epoch
	Until   int64         `json:"until,omitempty"`  // end of the lease, in ns of the boot clock
	Margin  time.Duration `json:"margin,omitempty"` // the command has to be over this long before Until
	Lost    string        `json:"lost,omitempty"`   // why it was lost; the command has to end, then the client calls EndLock
}

// LockEnd is how a client says that its command is over.
type LockEnd struct {
	ID uint64 `json:"id"`
	// Keep says that the node is about to reboot, or that nobody knows.
	Keep bool `json:"keep,omitempty"`
}

// Locker is the part of an Agent that serves locks.
type Locker interface {
	// Lock asks for a lock for a client with that user id. It calls tell with each change
	// until ctx ends. If ctx ends without EndLock, the client died, and the lease is left
	// to expire.
	Lock(ctx context.Context, r LockRequest, uid uint32, tell func(LockLevel)) error
	EndLock(ctx context.Context, end LockEnd) error
}

const (
	maxLockName  = 63
	maxUntil     = 2048 // bytes of a shell line
	maxLockBody  = 8 << 10
	maxLockWaits = 32 // clients that hold or wait for a lock, out of maxConns connections
)

func (r LockRequest) check() error {
	if err := checkLockName(r.Name); err != nil {
		return err
	}
	keep := time.Duration(r.Keep)
	switch {
	case (keep == 0) != (r.Until == ""):
		return errors.New("lock: keep and until go together")
	case keep < 0 || keep > elect.MaxKeep || keep != 0 && keep < time.Second:
		return fmt.Errorf("lock: keep %s is not possible (1s to %s)", keep, elect.MaxKeep)
	case len(r.Until) > maxUntil:
		return fmt.Errorf("lock: until of %d bytes is too long (at most %d)", len(r.Until), maxUntil)
	}
	return nil
}

// checkLockName accepts the same names as for VIPs and roles; no file has to list them.
func checkLockName(name string) error {
	if name == "" || len(name) > maxLockName {
		return fmt.Errorf("lock name of %d bytes: has to have 1 to %d", len(name), maxLockName)
	}
	for i, r := range name {
		alnum := r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r))
		if !alnum && (i == 0 || r != '.' && r != '_' && r != '-') {
			return fmt.Errorf("lock name %q: letters, digits, and after the first one of them . _ - too", oneLine(name))
		}
	}
	return nil
}

// lock reports the state of a client's lock, one JSON object per line, until it hangs up.
func (s *Server) lock(w http.ResponseWriter, r *http.Request) (any, error) {
	var req LockRequest
	if err := readLock(w, r, &req); err != nil {
		return nil, err
	}
	if err := req.check(); err != nil {
		return nil, refuse(http.StatusBadRequest, "%w", err)
	}
	uid, known := clientUser(r.Context())
	if !known {
		return nil, refuse(http.StatusForbidden, "lock %s: whose client this is cannot be told", req.Name)
	}
	select {
	case s.lockers <- struct{}{}:
		defer func() { <-s.lockers }()
	default:
		return nil, refuse(http.StatusServiceUnavailable, "lock %s: %d clients of this node hold or wait for locks already", req.Name, maxLockWaits)
	}
	ctx, out := s.lines(w, r)
	defer out.end()
	told := false
	err := s.agent.Lock(ctx, req, uid, func(l LockLevel) {
		told = true
		l.Waiting, l.Lost = oneLine(l.Waiting), oneLine(l.Lost)
		writeLines(out, l)
	})
	if err != nil && !told {
		return nil, err
	}
	return nil, nil
}

func (s *Server) unlock(w http.ResponseWriter, r *http.Request) (any, error) {
	var end LockEnd
	if err := readLock(w, r, &end); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.ask)
	defer cancel()
	if err := s.agent.EndLock(ctx, end); err != nil {
		return nil, err
	}
	return outcome{}, nil
}

func readLock(w http.ResponseWriter, r *http.Request, doc any) error {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLockBody))
	if err != nil {
		return refuse(http.StatusBadRequest, "lock: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(doc); err != nil {
		return refuse(http.StatusBadRequest, "lock: not one JSON object: %w", err)
	}
	return nil
}

// userKey is the context key for the user at the other end of a connection.
type userKey struct{}

// withUser puts the user at the other end into the context. The Until line that a client
// leaves behind runs as that user.
func withUser(ctx context.Context, c net.Conn) context.Context {
	if a, ok := c.RemoteAddr().(peerAddr); ok {
		return context.WithValue(ctx, userKey{}, a.uid)
	}
	return ctx
}

func clientUser(ctx context.Context) (uint32, bool) {
	uid, ok := ctx.Value(userKey{}).(uint32)
	return uid, ok
}

// peers puts each connection's user id into its remote address. It has to look at the
// connection itself: the wrappers around it pass on nothing but that address.
type peers struct{ net.Listener }

type peerConn struct {
	net.Conn
	addr peerAddr
}

type peerAddr struct {
	net.Addr
	uid uint32
}

func (l peers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return c, nil
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return c, nil
	}
	var cred *syscall.Ucred
	if e := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); e != nil || err != nil {
		return c, nil
	}
	return peerConn{c, peerAddr{c.RemoteAddr(), cred.Uid}}, nil
}

func (c peerConn) RemoteAddr() net.Addr { return c.addr }

// Lock asks for a lock and calls tell with each change, until ctx ends or the agent goes
// away; in the latter case it returns *NoAgent.
func (c *Client) Lock(ctx context.Context, r LockRequest, tell func(LockLevel)) error {
	if err := r.check(); err != nil {
		return err
	}
	request, err := encode(r)
	if err != nil {
		return err
	}
	body, err := c.roundTrip(ctx, http.MethodPost, pathLock, nil, request)
	if err != nil {
		return err
	}
	defer body.Close()
	return readLines(ctx, c, body, &NoAgent{c.socket, errors.New("it ended"), adviceLog}, func(l LockLevel) error {
		l.Waiting, l.Lost = oneLine(l.Waiting), oneLine(l.Lost)
		tell(l)
		return nil
	})
}

// EndLock tells the agent that the command under a lock is over.
func (c *Client) EndLock(ctx context.Context, end LockEnd) error {
	request, err := encode(end)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.ask)
	defer cancel()
	var out outcome
	return c.exchange(ctx, http.MethodPost, pathUnlock, nil, request, &out)
}
