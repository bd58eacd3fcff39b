package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func dial(t *testing.T, dir string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(deadline))
	return conn
}

// raw sends bytes and returns the status code and body of the answer.
func raw(t *testing.T, dir, request string) (int, string) {
	t.Helper()
	conn := dial(t, dir)
	go io.WriteString(conn, request) // the server may stop reading
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	// The kernel resets the connection if the server did not read all bytes (unix(7)).
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("%.60q: %v", request, err)
	}
	return resp.StatusCode, string(body)
}

func post(body string) string {
	return fmt.Sprintf("POST /v1/command HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }

func TestServerRefusesOddInput(t *testing.T) {
	agent := steady()
	agent.do = func(_ context.Context, cmd Command) (string, error) {
		t.Errorf("the agent is asked to %s", cmd)
		return "", nil
	}
	s, _, dir := start(t, agent)
	cases := []struct {
		name, request string
		code          int
		says          string
	}{
		{"unknown page", get("/v2/status"), 404, "no such page"},
		{"climbing", get("/v1/%2e%2e/%2e%2e/etc/passwd"), 404, "no such page"},
		{"wrong method", "DELETE /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 405, "use GET"},
		{"command by GET", get("/v1/command"), 405, "use POST"},
		{"oversized", post(`{"kind":"` + strings.Repeat("x", 1<<20) + `"}`), 413, "longer than 4096 bytes"},
		{"empty", post(""), 400, "not one JSON object"},
		{"not JSON", post("move vip1 pbx2"), 400, "not one JSON object"},
		{"list", post(`[]`), 400, "not one JSON object"},
		{"unknown field", post(`{"kind":"drain","force":true}`), 400, "force"},
		{"two objects", post(`{"kind":"stop"}{"kind":"stop"}`), 400, "more than one"},
		{"no kind", post(`{}`), 400, "unknown"},
		{"unknown kind", post(`{"kind":"reboot"}`), 400, "command reboot: unknown (move, failback, drain, undrain, freeze, thaw, adopt, reload, stop)"},
		{"half a move", post(`{"kind":"move","vip":"vip1"}`), 400, "needs a VIP and a node"},
		{"stop takes nothing", post(`{"kind":"stop","node":"pbx1"}`), 400, "takes no such argument"},
		{"drain takes no VIP", post(`{"kind":"drain","vip":"vip1"}`), 400, "takes no such argument"},
		{"long name", post(`{"kind":"drain","node":"` + strings.Repeat("n", 200) + `"}`), 400, "longer than any configured name"},
		{"escape in a name", post(`{"kind":"drain","node":"\u001b[2J"}`), 400, "?[2J: not a configured name"},
		{"events, how many", get("/v1/events"), 400, "n has to be a number"},
		{"events, too many", get("/v1/events?n=1000000"), 400, "n has to be a number"},
		{"events, fewer than none", get("/v1/events?n=-1"), 400, "n has to be a number"},
		{"plan without a crowd", get("/v1/plan?" + strings.Repeat("without=a&", 65)), 400, "too many"},
		{"plan without a bell", get("/v1/plan?without=%07"), 400, "not a configured name"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := s.Counters()["control_refused"]
			code, body := raw(t, dir, c.request)
			if code != c.code || !strings.Contains(body, c.says) || strings.Count(body, "\n") != 1 {
				t.Errorf("answered %d %s, want %d and %q on one line", code, body, c.code, c.says)
			}
			if after := s.Counters()["control_refused"]; after != before+1 {
				t.Errorf("refused counts %d, then %d", before, after)
			}
		})
	}
	for name, request := range map[string]string{
		"not HTTP":    "\x16\x03\x01\x00\xff\r\n\r\n",
		"huge header": "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
	} {
		if code, _ := raw(t, dir, request); code != 400 && code != 431 {
			t.Errorf("%s: answered %d", name, code)
		}
	}
	if _, err := NewClient(dir).Status(ctxFor(t)); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// Clients that send nothing or half a request, or do not read, are dropped and cost other
// clients nothing.
func TestSlowClientsAreDropped(t *testing.T) {
	agent := steady()
	big := example()
	for range 20000 {
		big.Nodes = append(big.Nodes, big.Nodes[0]) // more than a socket buffers
	}
	var sent Status
	agent.status = func(context.Context) (Status, error) { return sent, nil }
	sent = big
	_, journal, dir := start(t, agent, func(s *Server) { s.write = 100 * time.Millisecond })
	silent, half, body, deaf, follows := dial(t, dir), dial(t, dir), dial(t, dir), dial(t, dir), dial(t, dir)
	io.WriteString(half, "GET /v1/sta")
	io.WriteString(body, "POST /v1/command HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	io.WriteString(deaf, get("/v1/status"))
	io.WriteString(follows, get("/v1/events?n=1000&follow=1"))
	for range 400 {
		journal.Add(Event{Kind: KindNode, Text: strings.Repeat("x", 1000)})
	}
	if _, err := NewClient(dir).Plan(ctxFor(t), nil); err != nil {
		t.Errorf("beside slow clients: %v", err)
	}
	for name, conn := range map[string]net.Conn{"silent": silent, "half a request": half, "half a body": body} {
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("%s: not closed by the server: %v", name, err)
		}
	}
	for name, conn := range map[string]net.Conn{"deaf": deaf, "deaf follower": follows} {
		// What fits into the socket's buffer arrives once we read. The end of the answer
		// never does.
		eventuallyCut(t, name, conn)
	}
}

// A follower that does not read and is not dropped for a long time does not delay
// writers.
func TestDeafFollowerHoldsNobodyUp(t *testing.T) {
	s, journal, dir := start(t, steady(), func(s *Server) { s.write = time.Hour })
	add := func(n int) {
		for range n {
			journal.Add(Event{Kind: KindNode, Text: strings.Repeat("x", 1000)})
		}
	}
	add(1000) // more than a socket buffers
	follows := dial(t, dir)
	io.WriteString(follows, get("/v1/events?n=1000&follow=1"))
	if _, err := follows.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	added := make(chan struct{})
	go func() { add(400); close(added) }()
	select {
	case <-added:
	case <-time.After(deadline):
		t.Errorf("a deaf follower held the agent for %v", deadline)
	}
	if len(s.followers) != 1 {
		t.Error("it follows no more")
	}
	follows.Close() // ends every write to it, and every wait for that
	<-added
}

// eventuallyCut waits, without reading, until the server has closed conn: then writing
// fails.
func eventuallyCut(t *testing.T, name string, conn net.Conn) {
	t.Helper()
	eventually(t, name+" client dropped", func() bool {
		_, err := conn.Write([]byte{'\n'})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%s: not dropped in %v", name, deadline)
		}
		return err != nil
	})
}

func TestAgentThatHangsIsNoAgent(t *testing.T) {
	agent := fake{
		status: func(ctx context.Context) (Status, error) { return Status{}, hang(ctx) },
		plan:   func(ctx context.Context, _ []string) (Plan, error) { return Plan{}, hang(ctx) },
	}
	_, _, dir := start(t, agent, func(s *Server) { s.ask = 20 * time.Millisecond })
	_, errStatus := NewClient(dir).Status(ctxFor(t))
	_, errPlan := NewClient(dir).Plan(ctxFor(t), nil)
	for _, err := range []error{errStatus, errPlan} {
		want := "ask the agent at " + filepath.Join(dir, SocketName) + ": the agent's loop did not answer in time (see its log: journalctl -u sipalive)"
		if _, none := errors.AsType[*NoAgent](err); !none || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A command may take longer than every read deadline; only the agent ends it.
func TestCommandTakesItsTime(t *testing.T) {
	agent := steady()
	agent.do = func(ctx context.Context, _ Command) (string, error) {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(readTimeout + 500*time.Millisecond):
			return "vip1: pbx1 -> pbx2 in 4 ms, epoch 8", nil
		}
	}
	_, _, dir := start(t, agent)
	got, err := NewClient(dir).Do(ctxFor(t), Command{Kind: Move, VIP: "vip1", Node: "pbx2"})
	if err != nil || got != "vip1: pbx1 -> pbx2 in 4 ms, epoch 8" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestClientGoneEndsItsCommand(t *testing.T) {
	began, ended := make(chan struct{}), make(chan error, 1)
	agent := steady()
	agent.do = func(ctx context.Context, _ Command) (string, error) {
		close(began)
		err := hang(ctx)
		ended <- err
		return "", err
	}
	_, _, dir := start(t, agent)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-began; cancel() }()
	if _, err := NewClient(dir).Do(ctx, Command{Kind: Drain}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the agent's call ends with %v", err)
		}
	case <-time.After(deadline):
		t.Error("the agent's call goes on without its client")
	}
}

// The answer to "stop" arrives although the server ends with the agent. Followers do not
// delay it.
func TestServeEndsAfterItsAnswers(t *testing.T) {
	agent := steady()
	asked, answer := make(chan struct{}), make(chan struct{})
	agent.do = func(ctx context.Context, _ Command) (string, error) {
		close(asked)
		<-answer
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(100 * time.Millisecond):
			return "all handed over", nil
		}
	}
	dir := t.TempDir()
	s := NewServer(agent, NewJournal(1))
	s.drain = time.Hour // it ends because its clients are done, not by this timeout
	stop := serve(t, s, dir)
	followed := make(chan error, 1)
	go func() { followed <- NewClient(dir).Follow(ctxFor(t), 0, func(Event) error { return nil }) }()
	eventually(t, "a follower", func() bool { return len(s.followers) == 1 })
	type result struct {
		text string
		err  error
	}
	stopped := make(chan result, 1)
	go func() {
		text, err := NewClient(dir).Do(ctxFor(t), Command{Kind: Stop})
		stopped <- result{text, err}
	}()
	<-asked
	go func() { <-s.closing; close(answer) }()
	stop()
	if r := <-stopped; r.err != nil || r.text != "all handed over" {
		t.Errorf("stop: %q, %v", r.text, r.err)
	}
	if _, none := errors.AsType[*NoAgent](<-followed); !none {
		t.Error("a follower is not told that the agent ended")
	}
}

func TestServeReportsASocketThatFails(t *testing.T) {
	l, _, err := Listen(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := NewServer(steady(), NewJournal(1)).Serve(ctxFor(t), l); err == nil {
		t.Error("serves on a closed socket")
	}
}

func TestStatusCarriesTheServersCounters(t *testing.T) {
	agent := steady()
	counters := map[string]uint64{"member_dropped": 3}
	agent.status = func(context.Context) (Status, error) {
		st := example()
		st.Counters = counters
		return st, nil
	}
	_, _, dir := start(t, agent)
	st, err := NewClient(dir).Status(ctxFor(t))
	if err != nil || st.Counters["control_requests"] != 1 || st.Counters["member_dropped"] != 3 {
		t.Errorf("counters %v, %v", st.Counters, err)
	}
	if len(counters) != 1 {
		t.Errorf("the agent's own counters were changed: %v", counters)
	}
}

// Control characters in untrusted text reach neither a script's line nor a terminal.
// Scripts get empty lists where the agent has none.
func TestAnswersAreClean(t *testing.T) {
	agent := steady()
	agent.status = func(context.Context) (Status, error) { return Status{Nodes: []NodeStatus{{}}}, nil }
	agent.do = func(_ context.Context, cmd Command) (string, error) {
		if cmd.Kind == Failback {
			return "vip1: pbx1 -> pbx3 in 4 ms, epoch 8", nil
		}
		return "", errors.New("pbx2 says:\n\x1b[2J <no> \xff")
	}
	agent.plan = func(context.Context, []string) (Plan, error) { return Plan{}, nil }
	_, _, dir := start(t, agent)
	for request, want := range map[string]string{
		get("/v1/status"):           `{"cluster":"","node":"","quorum":false,"fence":"","nodes":[{"name":"","address":"","alive":false,"fit":false,"sip":"","drained":false,"holds":[]}],"vips":[]}`,
		get("/v1/plan"):             `{"without":[],"vips":[]}`,
		get("/v1/events?n=5"):       `[]`,
		post(`{"kind":"failback"}`): `{"text":"vip1: pbx1 -> pbx3 in 4 ms, epoch 8"}`,
		post(`{"kind":"drain"}`):    `{"error":"pbx2 says: ?[2J <no> ?"}`,
	} {
		if _, body := raw(t, dir, request); body != want+"\n" {
			t.Errorf("%.40q answers %swant %s", request, body, want)
		}
	}
}

// counting counts how many connections were open at once.
type counting struct {
	net.Listener
	mu              sync.Mutex
	total, now, max int
}

func (l *counting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	l.now++
	l.max = max(l.max, l.now)
	return &counted{Conn: conn, l: l}, nil
}

func (l *counting) accepted() (total, most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total, l.max
}

type counted struct {
	net.Conn
	l    *counting
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.l.mu.Lock(); c.l.now--; c.l.mu.Unlock() })
	return c.Conn.Close()
}

func TestConnectionsAreLimited(t *testing.T) {
	dir := t.TempDir()
	inner, _, err := Listen(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	l := &counting{Listener: inner}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewServer(steady(), NewJournal(1)).Serve(ctx, l) }()
	const clients = maxConns + 30
	var conns []net.Conn
	for range clients {
		conns = append(conns, dial(t, dir))
	}
	eventually(t, "the limit", func() bool { total, _ := l.accepted(); return total >= maxConns })
	for _, conn := range conns {
		conn.Close()
	}
	eventually(t, "everybody's turn", func() bool { total, _ := l.accepted(); return total == clients })
	if _, most := l.accepted(); most != maxConns {
		t.Errorf("%d connections at once, want at most %d", most, maxConns)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
