package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sipalive/control"
)

const countEvery = time.Second

var errCalledOff = errors.New("drain --wait-calls: interrupted: nothing was moved")

// DrainQuietly answers `sipalive drain --wait-calls`. It stops new calls, and moves the
// VIPs once few enough calls are left or time is up. If ctx ends before the move,
// everything is as it was.
func (a *Agent) DrainQuietly(ctx context.Context, w control.WaitCalls, progress func(control.CallsLeft)) (text string, err error) {
	if !a.waitsOut.TryLock() {
		// Each drain would let new calls in while the other still waits, and so would
		// resumeCalls.
		return "", errors.New("drain --wait-calls: another one runs on this node (end it first), or new calls are just being let in again after one (try again)")
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
