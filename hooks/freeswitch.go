package hooks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
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
	password, err := readPassword(ask)
	if err != nil {
		return finish("", err)
	}
	s, err := openEventSocket(ctx, r.opts.Dial, address, password)
	if err != nil {
		return finish("", err)
	}
	defer s.close()
	for _, command := range a.FreeSWITCH {
		began := r.opts.Now()
		text, err := s.api(command)
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

func readPassword(ask func() (string, error)) (string, error) {
	if ask == nil {
		return "", errors.New("no password (set password_file under [freeswitch])")
	}
	password, err := ask()
	if err != nil {
		return "", fmt.Errorf("no password: %s", oneLine(err.Error()))
	}
	password = strings.TrimSpace(password)
	if password == "" || strings.ContainsAny(password, "\r\n\x00") {
		return "", errors.New("the password is not one line of text (see password_file)")
	}
	return password, nil
}

// explain puts the end of the action before whatever error it caused on the
// connection.
func (r *Runner) explain(ctx context.Context, a Action, err error) string {
	var op *net.OpError
	switch {
	case ended(ctx, err) && r.ctx.Err() == nil:
		return whyEnded(ctx, "no answer", a.timeout()) + " (frozen, or its database is away?)"
	case ended(ctx, err):
		return whyEnded(ctx, "no answer", a.timeout())
	case errors.As(err, &op) && op.Op == "dial":
		return oneLine(op.Err.Error()) + " (is FreeSWITCH running, mod_event_socket loaded?)"
	case errors.As(err, &op):
		return oneLine(op.Err.Error())
	}
	return oneLine(err.Error())
}

// api sends one API command and judges the answer. The text is what FreeSWITCH
// said, whether it is a failure or not.
func (s *eventSocket) api(command string) (text string, err error) {
	f, err := s.command("api " + command)
	if err != nil {
		return "", err
	}
	if f.contentType != typeAPIResponse {
		return f.replyText, fmt.Errorf("%s", oneLine(f.replyText)) // mod_event_socket itself refused the line
	}
	return string(f.body), judge(string(f.body))
}

// failures are how lines begin with which FreeSWITCH says no; many have no -ERR.
// From recordings of 1.11.1 (testdata) and, for those marked so, from reading
// mod_sofia.c.
var failures = []string{
	"-ERR",
	"-USAGE",
	"Usage:", // read
	"Invalid Profile",
	"Invalid Args!",    // read
	"Invalid Syntax!",  // read
	"Invalid Gateway!", // read, also with a small g
	"No gateway name",  // read
	"Unknown Command",
	"Failure starting",
}

// judge returns the line with which an API answer says that the command failed,
// nil if none does. "No sessions to recover." is no failure.
func judge(text string) error {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for _, begin := range failures {
			if len(line) >= len(begin) && strings.EqualFold(line[:len(begin)], begin) {
				return errors.New(oneLine(line))
			}
		}
		tooYoung := strings.HasPrefix(line, "Profile ") && strings.Contains(line, "must be up for at least")
		if tooYoung || strings.HasSuffix(line, "Command not found!") {
			return errors.New(oneLine(line))
		}
	}
	return nil
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
