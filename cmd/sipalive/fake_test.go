package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sipalive/control"
	"sipalive/platform"
	"sipalive/test/lab"
)

// journals contains the running agents' journals, by the directory of their script.
var journals sync.Map

// fakeAgent answers as pbx1 of three nodes would, which holds vip1 and the role cdr. A
// frozen fakeAgent answers nothing.
type fakeAgent struct{ frozen bool }

func (a fakeAgent) wait(ctx context.Context) error {
	if a.frozen {
		<-ctx.Done()
	}
	return ctx.Err()
}

func (a fakeAgent) Status(ctx context.Context) (control.Status, error) {
	node := func(name, address string, holds ...string) control.NodeStatus {
		return control.NodeStatus{Name: name, Address: address, Alive: true, Fit: true, SIP: "up", Holds: holds}
	}
	since := control.Since{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	return control.Status{
		Cluster: "pbx-dc1", Node: "pbx1", Quorum: true, Fence: "none",
		Nodes: []control.NodeStatus{node("pbx1", "192.0.2.11", "vip1", "cdr"), node("pbx2", "192.0.2.12", "vip2"), node("pbx3", "192.0.2.13")},
		VIPs: []control.VIPStatus{
			{Name: "vip1", Address: "192.0.2.101", Holder: "pbx1", Epoch: 7, Since: since, State: "held", Router: "unknown", Verified: true, Reason: "pbx1: first in prefer"},
			{Name: "vip2", Address: "192.0.2.102", Holder: "pbx2", Epoch: 3, Since: since, State: "held", Router: "unknown", Verified: true, Reason: "pbx2: first in prefer"},
		},
		Roles: []control.RoleStatus{{Name: "cdr", Holder: "pbx1", Epoch: 1, Since: since, State: "held", Reason: "pbx1: holds it"}},
	}, a.wait(ctx)
}

func (a fakeAgent) Flush(ctx context.Context) ([]control.FlushResult, error) {
	return []control.FlushResult{{Node: "pbx1", Action: "memcached 127.0.0.1:11211", OK: true, Took: control.Millis(time.Millisecond)},
		{Node: "pbx2", Text: "not heard"}}, a.wait(ctx)
}

// Lock: "busy" stays another node's for ever. The lease of "late" is nearly over when the
// client is told of it. "lost" is lost after it was held.
func (a fakeAgent) Lock(ctx context.Context, r control.LockRequest, _ uint32, tell func(control.LockLevel)) error {
	switch r.Name {
	case "busy":
		tell(control.LockLevel{ID: 1, Waiting: "held by pbx2"})
	case "late":
		tell(control.LockLevel{ID: 1, Epoch: 7, Until: platform.BootNow() + int64(100*time.Millisecond), Margin: 50 * time.Millisecond})
	default:
		held := control.LockLevel{ID: 1, Node: "pbx1", Epoch: 7, Until: platform.BootNow() + int64(time.Hour), Margin: 50 * time.Millisecond}
		tell(held)
		if r.Name == "lost" {
			held.Lost = "the lease is lost"
			tell(held)
		}
	}
	<-ctx.Done()
	return nil
}

func (a fakeAgent) EndLock(context.Context, control.LockEnd) error { return nil }

func (a fakeAgent) DrainQuietly(ctx context.Context, w control.WaitCalls, progress func(control.CallsLeft)) (string, error) {
	for _, n := range []int{3, 3, 1} {
		progress(control.CallsLeft{Calls: n, Left: control.Millis(w.Wait)})
	}
	return fmt.Sprintf("%d calls left; pbx1 is drained", w.MaxCalls), a.wait(ctx)
}

func (a fakeAgent) RotateKey(ctx context.Context, without []string, progress func(control.KeyStep)) (string, error) {
	if len(without) == 0 {
		return "", errors.New("key rotate: pbx3: no answer within 3s; nothing was changed")
	}
	for _, n := range []string{"pbx1", "pbx2"} {
		progress(control.KeyStep{Node: n, Step: "accepts the new key", Key: "3a1f90b2"})
	}
	return "key rotated: 3a1f90b2 on pbx1, pbx2; not on " + without[0], a.wait(ctx)
}

func (a fakeAgent) Plan(ctx context.Context, without []string) (control.Plan, error) {
	p := control.Plan{Without: without, VIPs: []control.PlannedVIP{{Name: "vip1", Holder: "pbx1", Would: "pbx1", Reason: "pbx1: holds it"}}}
	for _, name := range without {
		switch name {
		case "pbx1":
			p.VIPs[0].Would, p.VIPs[0].Reason = "pbx3", "pbx3: spare"
		case "pbx2", "pbx3":
		default:
			return p, fmt.Errorf("plan without %s: no such node (sipalive status lists them)", name)
		}
	}
	return p, a.wait(ctx)
}

func (a fakeAgent) Do(ctx context.Context, c control.Command) (string, error) {
	switch {
	case c.Kind == control.Move && c.Node == "pbx3":
		return "vip1: pbx1 -> pbx3 in 4 ms, epoch 8", a.wait(ctx)
	case c.Kind == control.Move:
		return "", errors.New("move vip1 to pbx9: no such node\n(sipalive status lists them)")
	case c.Kind == control.Drain && c.Node == "":
		return "pbx1: drained", nil
	}
	return "", nil
}

const takeoverID = 2

// fillJournal adds a start, and a takeover that is not complete.
func fillJournal(j *control.Journal) {
	at := func(ms int) control.Stamp {
		return control.Stamp{Time: time.Date(2026, 1, 2, 3, 4, 5, ms*int(time.Millisecond), time.UTC)}
	}
	j.Add(control.Event{Time: at(0), Node: "pbx1", Kind: control.KindAgent, Text: "started"})
	e := control.Event{Time: at(7), Node: "pbx1", Kind: control.Takeover, VIP: "vip1", Epoch: 7, From: "pbx2", To: "pbx1", Reason: "crash"}
	e.Add("noticed", 0)
	e.Add("lease", 41*time.Millisecond)
	j.Add(e)
}

// startSIP answers OPTIONS on a loopback address: over UDP, and also over TCP if the
// address is given.
func startSIP(ts *testscript.TestScript, _ bool, args []string) {
	at := "127.0.0.1:0"
	if len(args) > 0 {
		at = args[0]
		startSIPOverTCP(ts, at)
	}
	conn, err := net.ListenPacket("udp", at)
	ts.Check(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for buf := make([]byte, 2048); ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			conn.WriteTo([]byte(sipAnswer(string(buf[:n]))), from)
		}
	}()
	ts.Defer(func() { conn.Close(); <-done })
	ts.Setenv("SIP", conn.LocalAddr().String())
}

// startTLS answers OPTIONS over TLS. Its certificate, by the authority in ca.pem, ends at
// a given date.
func startTLS(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tls ADDRESS:PORT DATE")
	}
	ends, err := time.Parse(time.DateOnly, args[1])
	ts.Check(err)
	by, err := lab.NewAuthority("Test Authority")
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), by.PEM(), 0o600))
	cert, key, err := by.Issue("pbx1.example.net", ends)
	ts.Check(err)
	pair, err := tls.X509KeyPair(cert, key)
	ts.Check(err)
	ln, err := net.Listen("tcp", args[0])
	ts.Check(err)
	serveStream(ts, tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{pair}}))
}

// startMute listens over UDP and answers nothing.
func startMute(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: mute ADDRESS:PORT")
	}
	conn, err := net.ListenPacket("udp", args[0])
	ts.Check(err)
	ts.Defer(func() { conn.Close() })
}

func startSIPOverTCP(ts *testscript.TestScript, at string) {
	ln, err := net.Listen("tcp", at)
	ts.Check(err)
	serveStream(ts, ln)
}

func serveStream(ts *testscript.TestScript, ln net.Listener) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 2048) // the whole request comes in one segment
			if n, err := conn.Read(buf); err == nil {
				_, _ = io.WriteString(conn, sipAnswer(string(buf[:n])))
				_, _ = conn.Read(buf) // until the client has read it
			}
			conn.Close()
		}
	}()
	ts.Defer(func() { ln.Close(); <-done })
}

func sipAnswer(request string) string {
	answer := "SIP/2.0 200 OK\r\n"
	for line := range strings.SplitSeq(request, "\r\n") {
		name, _, _ := strings.Cut(line, ":")
		switch name {
		case "Via", "From", "Call-ID", "CSeq":
			answer += line + "\r\n"
		case "To":
			answer += line + ";tag=1\r\n"
		}
	}
	return answer + "Server: test\r\nContent-Length: 0\r\n\r\n"
}
