package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sipalive/control"
	"sipalive/eventsocket"
)

const (
	countEvery    = time.Second
	socketTimeout = 5 * time.Second // for one question to FreeSWITCH
	pausedName    = "paused"        // in the runtime directory, while this agent keeps FreeSWITCH paused
)

// pbx asks this node's FreeSWITCH. Each question has its own connection, because
// FreeSWITCH may be restarted while we wait, or be frozen.
type pbx struct {
	client eventsocket.Client
	mark   string // the file that says that we paused it
}

func (a *Agent) pbx() pbx {
	address, password := a.Runner.FreeSWITCH()
	return pbx{
		client: eventsocket.Client{Address: address, Password: password},
		mark:   filepath.Join(a.Directory.Run(), pausedName),
	}
}

func (p pbx) ask(ctx context.Context, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, socketTimeout)
	defer cancel()
	conn, err := p.client.Open(ctx)
	if err == nil {
		defer conn.Close()
		var text string
		if text, err = conn.API(command); err == nil {
			return strings.TrimSpace(text), nil
		}
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer within %s", socketTimeout)
	}
	return "", fmt.Errorf("freeswitch %s: %s: %w", p.client.Address, command, err)
}

// pause stops new calls. ours reports whether new calls were let in before: then this
// agent has to let them in again.
func (p pbx) pause(ctx context.Context) (ours bool, err error) {
	before, err := p.ask(ctx, "fsctl pause_check")
	if err != nil || before == "true" {
		return false, err
	}
	if err := os.WriteFile(p.mark, nil, 0o600); err != nil {
		return false, err
	}
	if _, err = p.ask(ctx, "fsctl pause"); err == nil {
		var now string
		if now, err = p.ask(ctx, "fsctl pause_check"); err == nil && now != "true" {
			err = fmt.Errorf("freeswitch %s: fsctl pause_check says %s after fsctl pause", p.client.Address, now)
		}
	}
	return true, err
}

// hasPaused reports whether this agent, or one before it, keeps FreeSWITCH paused.
// FreeSWITCH up to 1.10.12 then answers OPTIONS with 503; that is no sickness, whether or
// not 503 is listed.
func (a *Agent) hasPaused() bool {
	_, err := os.Stat(filepath.Join(a.Directory.Run(), pausedName))
	return err == nil
}

// resume lets new calls in again. If that fails, the mark stays.
func (p pbx) resume(ctx context.Context) error {
	if _, err := p.ask(ctx, "fsctl resume"); err != nil {
		return err
	}
	return os.Remove(p.mark)
}

var callsTotal = regexp.MustCompile(`(?m)^(\d+) total\.$`)

// calls returns the number of calls on the node.
func (p pbx) calls(ctx context.Context) (int, error) {
	text, err := p.ask(ctx, "show calls count")
	if err != nil {
		return 0, err
	}
	m := callsTotal.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("freeswitch %s: show calls count says %q", p.client.Address, text)
	}
	return strconv.Atoi(m[1])
}

var errCalledOff = errors.New("drain --wait-calls: interrupted: nothing was moved")

// DrainQuietly answers `sipalive drain --wait-calls`. It stops new calls, and moves the
// VIPs once few enough calls are left or time is up. If ctx ends before the move,
// everything is as it was.
func (a *Agent) DrainQuietly(ctx context.Context, w control.WaitCalls, progress func(control.CallsLeft)) (text string, err error) {
	if !a.waitsOut.TryLock() {
		// Each would let new calls in while the other still waits.
		return "", errors.New("drain --wait-calls: another one runs on this node (end it first)")
	}
	defer a.waitsOut.Unlock()
	p := a.pbx()
	ours, err := p.pause(ctx)
	defer func() {
		if !ours {
			return
		}
		again, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*socketTimeout)
		defer cancel()
		switch e := p.resume(again); {
		case e != nil:
			a.recorder.warn("let new calls in again", e)
			err = errors.Join(err, fmt.Errorf("new calls are still refused: %w (fsctl resume)", e))
		case err == errCalledOff:
			err = fmt.Errorf("%w, and new calls are let in again", err)
		}
	}()
	if err != nil && ctx.Err() == nil {
		return "", fmt.Errorf("drain --wait-calls: %w", err)
	}
	left := a.waitCalls(ctx, p, w, progress)
	if ctx.Err() != nil {
		return "", errCalledOff
	}
	// Once the loop has the drain it carries it out, whether or not the caller still
	// waits.
	text, err = a.Do(context.WithoutCancel(ctx), control.Command{Kind: control.Drain})
	if err == nil {
		text = left + "; " + text
	}
	return text, err
}

// waitCalls waits until few enough calls are left, time is up or ctx ends. It returns in
// words what was left.
func (a *Agent) waitCalls(ctx context.Context, p pbx, w control.WaitCalls, progress func(control.CallsLeft)) string {
	end := time.Now().Add(w.Wait)
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		n, err := p.calls(ctx)
		left := max(0, time.Until(end))
		switch {
		case ctx.Err() != nil:
		case err != nil:
			progress(control.CallsLeft{Left: control.Millis(left), Text: err.Error()})
		default:
			progress(control.CallsLeft{Calls: n, Left: control.Millis(left)})
			if n <= w.MaxCalls {
				return fmt.Sprintf("%d calls left", n)
			}
		}
		if left == 0 {
			if err != nil {
				return "nobody knows how many calls are left"
			}
			return fmt.Sprintf("%d calls left after %s", n, w.Wait)
		}
		select {
		case <-tick.C:
		case <-time.After(left):
		case <-ctx.Done():
			return ""
		}
	}
}

// resumeCalls lets new calls in again if an earlier agent died while it waited for calls
// to end. It does nothing while a drain waits, because that drain may have paused them.
func (a *Agent) resumeCalls(ctx context.Context) error {
	p := a.pbx()
	for a.hasPaused() {
		if a.waitsOut.TryLock() {
			err := p.resume(ctx)
			a.waitsOut.Unlock()
			if err == nil || ctx.Err() != nil {
				return nil
			}
			a.recorder.warn("let new calls in again", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(socketTimeout):
		}
	}
	return nil
}
