package hooks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sipalive/eventsocket"
)

// checkFreeSWITCH refuses commands before they are sent.
//
// `sofia recover` and `fsctl recover` take the calls of every profile on the
// node, those of healthy peers included: only `sofia profile NAME recover` is
// bound to one VIP. They are refused behind wrappers such as bgapi as well.
// FreeSWITCH compares these words without regard to case.
func checkFreeSWITCH(command string) error {
	fields := strings.Fields(command)
	if len(fields) == 0 {
		return errors.New("freeswitch: an empty command")
	}
	if strings.ContainsAny(command, "\r\n\x00") {
		return fmt.Errorf("freeswitch %s: a newline in a command (give several commands as several strings)", oneLine(command))
	}
	for i, word := range fields[1:] {
		before := fields[i]
		if strings.EqualFold(word, "recover") && (strings.EqualFold(before, "sofia") || strings.EqualFold(before, "fsctl")) {
			return fmt.Errorf("freeswitch %s: takes the calls of every profile and node (use sofia profile NAME recover)", oneLine(command))
		}
	}
	return nil
}

// runFreeSWITCH sends the action's commands in order on one connection and stops
// at the first that fails.
func (r *Runner) runFreeSWITCH(ctx context.Context, a Action) result {
	var out capture
	var notes []string
	address, ask := r.freeSWITCH()
	finish := func(step string, err error) result {
		if err != nil {
			err = fmt.Errorf("freeswitch %s: %s%s", address, step, r.explain(ctx, a, err))
		}
		return result{err: err, note: strings.Join(notes, "; "), output: out.String()}
	}
	client := eventsocket.Client{Address: address, Password: ask, Dial: r.opts.Dial}
	s, err := client.Open(ctx)
	if err != nil {
		return finish("", err)
	}
	defer s.Close()
	for _, command := range a.FreeSWITCH {
		began := r.opts.Now()
		text, err := s.API(command)
		fmt.Fprintf(&out, "> %s\n%s\n", command, strings.TrimRight(text, "\n"))
		if err != nil {
			return finish(oneLine(command)+": ", err)
		}
		if note := doubt(text, time.Duration(r.opts.Now()-began)); note != "" {
			notes = append(notes, oneLine(command)+": "+note)
		}
	}
	return finish("", nil)
}

// explain puts the end of the action before whatever error it caused on the
// connection.
func (r *Runner) explain(ctx context.Context, a Action, err error) string {
	switch {
	case ended(ctx, err) && r.ctx.Err() == nil:
		return whyEnded(ctx, "no answer", a.timeout()) + " (frozen, or its database is away?)"
	case ended(ctx, err):
		return whyEnded(ctx, "no answer", a.timeout())
	}
	return oneLine(err.Error())
}

// slowRecover separates a true "No sessions to recover." from the one that comes
// after 6 s because the database is unreachable (measured, 1.11.1).
const slowRecover = 5 * time.Second

// doubt says what a good answer does not prove.
func doubt(text string, took time.Duration) string {
	switch {
	case strings.Contains(text, "started successfully"):
		return "said of a failed bind too, only an answered OPTIONS proves the profile"
	case strings.Contains(text, "No sessions to recover.") && took >= slowRecover:
		return fmt.Sprintf("nothing to recover after %s: is the database reachable?", took.Round(time.Second))
	case strings.Contains(text, "Reload XML [") && !strings.Contains(text, "Reload XML [Success]"):
		return "the configuration was not reloaded: " + oneLine(text)
	}
	return ""
}
