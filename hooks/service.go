package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The service runs exec actions in the agent's place. Its own unit is less confined than
// the agent's, so it may become another user and write where the agent must not. It is
// the same binary behind a private unix socket. Each connection carries one program; when
// the connection ends, the program is killed.

// Limits of a request. The kernel limits an argument list anyway (execve(2)), and only
// requests of root, the service's own user and the agents' users are read.
const (
	maxRequest  = 1 << 20
	maxPrograms = 64 // at a time; a VIP runs one
	helloTime   = 5 * time.Second
)

// request is what the agent sends; reply is the answer.
type request struct {
	program
	Timeout time.Duration `json:"timeout"`
}

type reply struct {
	Err    string `json:"err,omitempty"`
	Note   string `json:"note,omitempty"`
	Output string `json:"output,omitempty"`
}

// exec runs a program through the hooks service or, if there is none, directly.
func (r *Runner) exec(ctx context.Context, a Action, env []string) result {
	p := program{Argv: a.Exec, Env: env, User: a.User}
	if r.opts.Service != "" {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", r.opts.Service)
		switch {
		case err == nil:
			return r.byService(ctx, a, p, conn.(*net.UnixConn))
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		default:
			return result{err: fmt.Errorf("exec %s: the hooks service at %s: %s", oneLine(a.Exec[0]), r.opts.Service, oneLine(err.Error()))}
		}
	}
	as, err := p.account(uint32(os.Geteuid()), uint32(os.Getegid()))
	if err != nil {
		return result{err: fmt.Errorf("exec %s: %w", oneLine(a.Exec[0]), err)}
	}
	return runExec(ctx, a.timeout(), p, as, killGroup)
}

// byService lets the service run a program. The service's own timeout ends the program.
// The agent's timeout, a little later, gives up on the service.
func (r *Runner) byService(ctx context.Context, a Action, p program, conn *net.UnixConn) result {
	defer conn.Close()
	fail := func(err error) result {
		return result{err: fmt.Errorf("exec %s: the hooks service: %s", oneLine(a.Exec[0]), oneLine(err.Error()))}
	}
	peer, err := peerOf(conn)
	if err != nil {
		return fail(err)
	}
	if peer.Uid != 0 && peer.Uid != uint32(os.Geteuid()) {
		return fail(fmt.Errorf("user %d listens at %s, neither root nor the agent's own", peer.Uid, r.opts.Service))
	}
	late, cancel := context.WithTimeout(r.ctx, a.timeout()+killGrace+time.Second)
	defer cancel()
	defer context.AfterFunc(late, func() { conn.Close() })()
	if err := json.NewEncoder(conn).Encode(request{p, a.timeout()}); err != nil {
		return fail(err)
	}
	var rep reply
	if err := json.NewDecoder(conn).Decode(&rep); err != nil {
		if late.Err() != nil {
			return result{err: fmt.Errorf("exec %s: %s", oneLine(a.Exec[0]), whyEnded(late, "no answer from the hooks service", a.timeout()))}
		}
		return fail(errors.New("it ended before it had answered (see its log: journalctl -u sipalive-hooks)"))
	}
	res := result{note: oneLine(rep.Note), output: printable(rep.Output)}
	if rep.Err != "" {
		res.err = errors.New(oneLine(rep.Err))
	}
	return res
}

func peerOf(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	if e := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return nil, e
	}
	return peer, err
}

// Serve runs programs for agents that connect to l until ctx ends; then running programs
// are killed. It serves only root, this process's own user and the users in agents; it
// closes other connections unread. It closes l. The error is why l failed, nil if ctx
// ended.
func Serve(ctx context.Context, l *net.UnixListener, agents ...uint32) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnding)
	defer context.AfterFunc(ctx, func() { l.Close() })()
	allowed := map[uint32]bool{0: true, uint32(os.Geteuid()): true}
	for _, uid := range agents {
		allowed[uid] = true
	}
	slots := make(chan struct{}, maxPrograms)
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			l.Close()
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			if peer, err := peerOf(conn); err == nil && allowed[peer.Uid] {
				serveOne(ctx, conn, peer)
			}
		})
	}
}

// serveOne runs one program.
func serveOne(ctx context.Context, conn *net.UnixConn, peer *unix.Ucred) {
	_ = conn.SetDeadline(time.Now().Add(helloTime))
	var req request
	if err := json.NewDecoder(io.LimitReader(conn, maxRequest)).Decode(&req); err != nil || len(req.Argv) == 0 {
		return
	}
	_ = conn.SetDeadline(time.Time{})
	a := Action{On: Acquire, Exec: req.Argv, User: req.User, Timeout: req.Timeout}
	rep := reply{}
	as, err := req.account(peer.Uid, peer.Gid)
	if err == nil {
		err = a.Check()
	}
	if err != nil {
		rep.Err = "exec " + oneLine(req.Argv[0]) + ": " + err.Error()
	} else {
		res := runExec(whileConnected(ctx, conn, a.timeout()), a.timeout(), req.program, as, killGroup)
		rep.Note, rep.Output = res.note, res.output
		if res.err != nil {
			rep.Err = res.err.Error()
		}
	}
	_ = conn.SetWriteDeadline(time.Now().Add(helloTime))
	_ = json.NewEncoder(conn).Encode(rep)
}

// whileConnected returns a context that ends with ctx, at the timeout, or when the agent
// hangs up. Bytes that arrive before that mean nothing: they are the newline after the
// request, if the decoder has not read that far.
func whileConnected(ctx context.Context, conn *net.UnixConn, timeout time.Duration) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(timeout, func() { cancel(context.DeadlineExceeded) })
	go func() {
		defer timer.Stop()
		_, _ = io.Copy(io.Discard, conn) // returns when either side closes
		cancel(errEnding)
	}()
	return ctx
}
