package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"sipalive/control"
)

const (
	watchEvery  = time.Second // and at every event
	watchEvents = 5           // shown below the status
)

// watchStatus calls show about once a second, and at once when something happens. It ends
// when it is interrupted or show fails.
func watchStatus(ctx context.Context, client *control.Client, show func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	happened := make(chan struct{}, 1)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		followAlways(ctx, client, happened)
	}()
	defer func() { <-followed }()
	defer stop()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := show(ctx); ctx.Err() == nil && err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-happened:
		}
	}
}

// followAlways signals every event. When an agent ends, followAlways follows the next
// one.
func followAlways(ctx context.Context, client *control.Client, happened chan<- struct{}) {
	for ctx.Err() == nil {
		_ = client.Follow(ctx, 0, func(control.Event) error { // when this fails, the status fails too, and reports it
			select {
			case happened <- struct{}{}:
			default:
			}
			return nil
		})
		select {
		case <-ctx.Done():
		case <-time.After(watchEvery):
		}
	}
}

// watchScreen shows the status and the last events on the whole terminal. If the agent
// does not answer, it shows that and asks again.
func watchScreen(ctx context.Context, client *control.Client, f *os.File) (err error) {
	if _, err := f.WriteString(enterScreen); err != nil {
		return err
	}
	defer func() { _, _ = f.WriteString(leaveScreen) }() // the terminal may be gone
	return watchStatus(ctx, client, func(ctx context.Context) error {
		var text strings.Builder
		look := lookOn(f)
		if err := writeStatusAndEvents(ctx, &text, client, look); err != nil {
			text.Reset()
			text.WriteString(err.Error() + "\n")
		}
		fmt.Fprintf(&text, "\n%s, ends with Ctrl-C", look.Now.Format(time.TimeOnly))
		return redraw(f, text.String())
	})
}

func writeStatusAndEvents(ctx context.Context, w io.Writer, client *control.Client, look control.Look) error {
	st, err := client.Status(ctx)
	if err != nil {
		return err
	}
	events, err := client.Events(ctx, watchEvents)
	if err != nil {
		return err
	}
	if err := control.WriteStatus(w, st, look); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, e := range events {
		var lines strings.Builder
		if err := control.WriteEvent(&lines, e, look.Location); err != nil {
			return err
		}
		line, _, _ := strings.Cut(lines.String(), "\n") // `sipalive events` shows the timeline
		fmt.Fprintln(w, line)
	}
	return nil
}
