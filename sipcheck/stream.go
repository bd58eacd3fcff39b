package sipcheck

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"time"
)

// connectionAge is how long one connection carries probes. It is kept from probe to
// probe, so the reset of a dying server reaches us at once. And TLS then needs a
// handshake only now and then; one per probe would take most of the CPU that the agent is
// allowed. It is renewed, because a phone that registers needs the listener, the
// accepting process and today's certificate, and an old connection shows none of them. A
// suspicion or a request for a fresh probe does not wait for the renewal.
const connectionAge = 10 * time.Second

// streams is the link over TCP or TLS: one connection at a time.
type streams struct {
	dial    dialer
	age     time.Duration // connectionAge
	timeout time.Duration // of a probe, and so of a connection attempt
	wakeup  chan struct{}
	events  chan connEvent
	out     []byte

	conn    *connection // nil: not open, or not yet
	readers sync.WaitGroup
}

// connection is one TCP connection, from before it is connected until it is closed. Its
// own goroutine dials and reads. Run's goroutine writes.
type connection struct {
	cancel context.CancelFunc // ends the dialling
	gone   chan struct{}      // closed when the connection is dropped

	// Only Run's goroutine uses the fields below.
	ready  bool // connected; over TLS: the handshake is done
	net    net.Conn
	local  netip.AddrPort
	opened time.Time
	asked  string // branch of the last probe written to it
	good   bool   // a probe was answered over it
	owes   bool   // the answer to asked is still due
	cert   *Certificate
	took   time.Duration // time to connect, the TLS handshake included

	mu     sync.Mutex
	tcp    *net.TCPConn // nil: not connected yet
	closed bool
}

// connEvent is what a connection's goroutine reports to Run.
type connEvent struct {
	from    *connection
	message []byte
	up      *established
	err     error
}

type established struct {
	conn net.Conn
	cert *Certificate
	took time.Duration
}

func newStreams(d dialer, timeout time.Duration) *streams {
	return &streams{dial: d, age: connectionAge, timeout: timeout, wakeup: make(chan struct{}, 1), events: make(chan connEvent)}
}

// send writes the flight's message only once per connection, because TCP repeats it
// itself. If a connection is still not connected when the probe is due again, send dials
// a new one, because the kernel repeats a lost SYN only after a second.
func (l *streams) send(f *flight, now time.Time, anew bool) (sent bool, err error) {
	c := l.conn
	switch {
	case c == nil:
	case c.ready && c.asked == f.ids.branch && !anew:
		return false, nil
	case c.ready && !anew && now.Sub(c.opened) < l.age:
		// If the server has closed the connection meanwhile, the error shows here or at
		// the next read. The next connection then shows whether the server lives.
		if err := l.write(c, f); err == nil || !c.good {
			return err == nil, err
		}
	case !c.ready && !anew && c.isConnected():
		return false, nil // the TLS handshake goes on
	}
	l.drop(l.conn != nil && l.conn.owes)
	l.open(now)
	return false, nil
}

func (l *streams) write(c *connection, f *flight) error {
	c.asked, c.owes = f.ids.branch, true
	l.out = f.appendMessage(l.out[:0], c.local)
	// SetWriteDeadline uses the kernel's clock. It counts from now, not from the flight's
	// deadline, which a starved Run may have missed already.
	c.net.SetWriteDeadline(time.Now().Add(f.target.Timeout))
	if _, err := c.net.Write(l.out); err != nil {
		l.drop(true)
		return err
	}
	return nil
}

func (l *streams) open(now time.Time) {
	ctx, cancel := context.WithCancel(context.Background())
	c := &connection{cancel: cancel, gone: make(chan struct{}), opened: now}
	l.conn = c
	l.readers.Add(1)
	go func() {
		defer l.readers.Done()
		l.serve(ctx, c)
	}()
}

// serve runs in a connection's goroutine: it dials, then reads until an error.
func (l *streams) serve(ctx context.Context, c *connection) {
	up, err := l.dial.open(ctx, c.keep)
	if err != nil {
		l.tell(connEvent{from: c, err: err})
		return
	}
	l.tell(connEvent{from: c, up: up})
	r := newMessageReader(up.conn)
	for {
		m, err := r.next()
		l.tell(connEvent{from: c, message: m, err: err})
		if err != nil {
			return
		}
	}
}

// tell blocks until Run takes the event. So what a server sends too fast waits in the
// server's kernel.
func (l *streams) tell(e connEvent) {
	select {
	case l.events <- e:
	case <-e.from.gone:
	}
}

// keep stores the TCP connection as soon as it exists, so that drop can close it in the
// middle of a handshake. It returns false if the connection has been dropped already.
func (c *connection) keep(tcp *net.TCPConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tcp = tcp
	return !c.closed
}

func (c *connection) isConnected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tcp != nil
}

// drop closes the connection. With reset it sends a reset. That is needed where data may
// be unacknowledged: otherwise the kernel would go on for minutes to deliver it to a
// server that hangs.
func (l *streams) drop(reset bool) {
	c := l.conn
	l.conn = nil
	if c == nil {
		return
	}
	close(c.gone)
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.tcp == nil {
		return
	}
	if reset {
		c.tcp.SetLinger(0)
	} else if secured, is := c.net.(*tls.Conn); is {
		secured.CloseWrite() // sends the TLS close; an answered connection has room for it
	}
	c.tcp.Close()
}

func (l *streams) wait() (arrival, bool) {
	for {
		select {
		case e := <-l.events:
			if e.from == l.conn {
				return l.take(e), true
			}
		case <-l.wakeup:
			return arrival{}, false
		}
	}
}

func (l *streams) waiting() (arrival, bool) {
	for {
		select {
		case e := <-l.events:
			if e.from == l.conn {
				return l.take(e), true
			}
		default:
			return arrival{}, false
		}
	}
}

func (l *streams) take(e connEvent) arrival {
	c := e.from
	switch {
	case e.up != nil:
		c.ready, c.net, c.cert, c.took = true, e.up.conn, e.up.cert, e.up.took
		c.local = localOf(e.up.conn.LocalAddr().(*net.TCPAddr).AddrPort())
		return arrival{ready: true}
	case e.err != nil:
		a := arrival{err: e.err, closed: c.ready}
		l.drop(false)
		return a
	}
	return arrival{message: e.message}
}

// fail does nothing: a failed write has already closed the connection, and no other local
// error outlives a connection.
func (l *streams) fail(error, time.Time) {}

// renew returns false: the kernel accepts only a refusal that quotes the connection's
// sequence numbers.
func (l *streams) renew() bool { return false }

func (l *streams) settle(answered bool, now time.Time) {
	switch c := l.conn; {
	case c == nil:
	case answered:
		c.good, c.owes = true, false
	case !c.ready && now.Sub(c.opened) >= l.timeout:
		l.drop(true)
	}
}

// connected returns how long the current connection took to open, and its certificate.
func (l *streams) connected() (took time.Duration, cert *Certificate) {
	if l.conn == nil {
		return 0, nil
	}
	return l.conn.took, l.conn.cert
}

func (l *streams) wake() {
	select {
	case l.wakeup <- struct{}{}:
	default:
	}
}

func (l *streams) close() {
	l.drop(l.conn != nil && l.conn.owes)
	l.readers.Wait()
}
