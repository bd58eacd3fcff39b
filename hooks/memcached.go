package hooks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// runMemcached sends flush_all to all servers of the action at the same time, each
// through its own client: a client with several servers stops at the first dead one. It
// fails if any server did not say OK, and names those servers.
func (r *Runner) runMemcached(ctx context.Context, a Action) result {
	answers := make([]chan error, len(a.Memcached))
	for i, server := range a.Memcached {
		answers[i] = make(chan error, 1)
		go func() { answers[i] <- r.flush(ctx, a.timeout(), server) }()
	}
	var flushed, failed []string
	for i, server := range a.Memcached {
		if err := <-answers[i]; err != nil {
			failed = append(failed, server+": "+oneLine(err.Error()))
		} else {
			flushed = append(flushed, server)
		}
	}
	res := result{}
	if len(flushed) > 0 {
		res.output = "flushed: " + strings.Join(flushed, ", ")
	}
	if len(failed) > 0 {
		res.err = fmt.Errorf("memcached: not flushed: %s", strings.Join(failed, "; "))
	}
	return res
}

// flush empties one server. ctx also limits the name lookup.
func (r *Runner) flush(ctx context.Context, timeout time.Duration, server string) error {
	client := memcache.NewFromSelector(oneServer(server))
	client.Timeout = 2 * timeout // longer than ctx, which ends everything; the default is 500 ms
	client.DialContext = r.bound(ctx)
	defer client.Close()
	err := client.FlushAll()
	var op *net.OpError
	switch {
	case err != nil && ended(ctx, err):
		return errors.New(whyEnded(ctx, "no answer", timeout))
	case errors.As(err, &op):
		return op.Err
	}
	return err
}

// bound dials connections that close when ctx ends, whatever context their client passes.
func (r *Runner) bound(ctx context.Context) func(context.Context, string, string) (net.Conn, error) {
	return func(_ context.Context, network, address string) (net.Conn, error) {
		conn, err := r.opts.Dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &boundConn{Conn: conn, stop: context.AfterFunc(ctx, func() { conn.Close() })}, nil
	}
}

// boundConn is a connection that closes when a context ends.
type boundConn struct {
	net.Conn
	stop func() bool
}

func (c *boundConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// oneServer selects one server by its unresolved name. The memcache package's own
// selector looks names up without a time limit.
type oneServer string

func (s oneServer) Network() string { return "tcp" }
func (s oneServer) String() string  { return string(s) }

func (s oneServer) PickServer(string) (net.Addr, error) { return s, nil }
func (s oneServer) Each(f func(net.Addr) error) error   { return f(s) }
