package hooks

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sipalive/eventsocket"
)

// checkFreeSWITCH refuses commands before they are sent.
//
// `sofia recover` and `fsctl recover` take the calls of every profile on the node,
// including those of healthy peers; only `sofia profile NAME recover` is limited to one
// VIP. They are refused behind wrappers such as bgapi as well. FreeSWITCH ignores the
// case of these words.
func checkFreeSWITCH(command string) error {
	fields := strings.Fields(command)
	if len(fields) == 0 {
		return errors.New("freeswitch: an empty command")
	}
	if strings.ContainsAny(command, "\r\n\x00") {
		return fmt.Errorf("freeswitch %s: a newline in a command (give several commands as several strings)", oneLine(command))
	}
	if v, known := verbs[fields[0]]; known {
		return v.check(fields)
	}
	for i, word := range fields[1:] {
		before := fields[i]
		if strings.EqualFold(word, "recover") && (strings.EqualFold(before, "sofia") || strings.EqualFold(before, "fsctl")) {
			return fmt.Errorf("freeswitch %s: takes the calls of every profile and node (use sofia profile NAME recover)", oneLine(command))
		}
	}
	return nil
}

// dialogue is a freeswitch action in progress.
type dialogue struct {
	r     *Runner
	ctx   context.Context
	phase Phase
	conn  *eventsocket.Conn
	out   capture
	notes []string
}

// runFreeSWITCH sends the action's commands in order on one connection and stops at the
// first that fails.
func (r *Runner) runFreeSWITCH(ctx context.Context, a Action, phase Phase) result {
	d := &dialogue{r: r, ctx: ctx, phase: phase}
	address, ask := r.FreeSWITCH()
	finish := func(step string, err error) result {
		if err != nil {
			err = fmt.Errorf("freeswitch %s: %s%s", address, step, r.explain(ctx, a, err))
		}
		return result{err: err, note: strings.Join(d.notes, "; "), output: d.out.String()}
	}
	client := eventsocket.Client{Address: address, Password: ask, Dial: r.opts.Dial}
	var err error
	if d.conn, err = client.Open(ctx); err != nil {
		return finish("", err)
	}
	defer d.conn.Close()
	for _, command := range a.FreeSWITCH {
		if err := d.run(command); err != nil {
			return finish(oneLine(command)+": ", err)
		}
	}
	return finish("", nil)
}

func (d *dialogue) run(command string) error {
	fields := strings.Fields(command)
	if v, known := verbs[fields[0]]; known {
		return v.run(d, strings.Join(fields[1:], ""))
	}
	return d.send(command)
}

// send sends a command unchanged.
func (d *dialogue) send(command string) error {
	began := d.r.opts.Now()
	text, err := d.api(command)
	if err != nil {
		return err
	}
	if note := doubt(text, time.Duration(d.r.opts.Now()-began)); note != "" {
		d.notes = append(d.notes, oneLine(command)+": "+note)
	}
	return nil
}

// api sends one command. A profile that is too young to be stopped or started again says
// how long to wait. api waits and sends the command again if there is time.
func (d *dialogue) api(command string) (string, error) {
	for {
		text, err := d.conn.API(command)
		fmt.Fprintf(&d.out, "> %s\n%s\n", command, strings.TrimRight(text, "\n"))
		wait, young := tooYoung(text)
		if !young || !d.inTime(wait) {
			return text, err
		}
		if err := d.r.opts.Wait(d.ctx, wait); err != nil {
			return text, err
		}
	}
}

// inTime reports whether the action has time left after the wait.
func (d *dialogue) inTime(wait time.Duration) bool {
	end, some := d.ctx.Deadline()
	return !some || time.Until(end) > wait
}

var pleaseWait = regexp.MustCompile(`(?s)must be up for at least \d+ seconds.*Please wait (\d+) seconds`)

// tooYoung reads how long FreeSWITCH asks to wait, in whole seconds.
func tooYoung(text string) (time.Duration, bool) {
	m := pleaseWait.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(m[1])
	return time.Duration(n) * time.Second, err == nil
}

// explain returns the reason for an error. If the action's time was over, that is the
// reason, whatever error it caused on the connection.
func (r *Runner) explain(ctx context.Context, a Action, err error) string {
	var p *notProven
	switch {
	case errors.As(err, &p):
		return oneLine(err.Error())
	case ended(ctx, err) && r.ctx.Err() == nil:
		return whyEnded(ctx, "no answer", a.timeout()) + " (frozen, or its database is away?)"
	case ended(ctx, err):
		return whyEnded(ctx, "no answer", a.timeout())
	}
	return oneLine(err.Error())
}

// slowRecover separates a true "No sessions to recover." from the one that comes when the
// database cannot be reached, after 6 s (measured, 1.11.1).
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
