package hooks

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"sipalive/eventsocket"
)

// verb is a ready-made freeswitch command. It does what an operator means where
// FreeSWITCH's own command does not say clearly whether it worked.
type verb struct {
	argument string // name of its argument, "" for none
	run      func(d *dialogue, argument string) error
}

// verbs are words with which no FreeSWITCH command begins. A command that begins with any
// other word is sent unchanged.
var verbs = map[string]verb{
	"profile-start":   {"NAME", (*dialogue).profileStart},
	"profile-recover": {"NAME", (*dialogue).profileRecover},
	"standby-on":      {"", func(d *dialogue, _ string) error { return d.send("sofia global standby on") }},
	"standby-off":     {"", func(d *dialogue, _ string) error { return d.send("sofia global standby off") }},
	"pause":           {"", func(d *dialogue, _ string) error { return d.pause("pause", "true") }},
	"resume":          {"", func(d *dialogue, _ string) error { return d.pause("resume", "false") }},
	"flush":           {"", (*dialogue).flush},
}

func (v verb) check(fields []string) error {
	takes := 0
	if v.argument != "" {
		takes = 1
	}
	switch {
	case len(fields)-1 == takes:
		return nil
	case takes == 0:
		return fmt.Errorf("freeswitch %s: takes no argument", oneLine(strings.Join(fields, " ")))
	}
	return fmt.Errorf("freeswitch %s: takes one %s, e.g. %s vip1", oneLine(strings.Join(fields, " ")), v.argument, fields[0])
}

// notProven is why a started profile does not count as running.
type notProven struct{ why string }

func (e *notProven) Error() string { return e.why }

// How often to look at a started profile, and how often to start it again. FreeSWITCH
// itself retries a failed bind after 5 s, three times. A profile that starts answers
// after 1.13 s (measured, 1.11.1).
const (
	profileEvery = 200 * time.Millisecond
	profileAgain = 3 * time.Second
)

// profileStart starts a profile unless it runs. It returns once the profile runs: `sofia
// xmlstatus` lists it as running, and its address answers OPTIONS. FreeSWITCH says
// "started successfully" even after a failed bind. On the successor of a move, in
// prepare, OPTIONS would reach the old holder, so it is left out.
func (d *dialogue) profileStart(name string) error {
	for since := profileAgain; ; since += profileEvery {
		p, err := d.profile(name)
		if err != nil {
			return err
		}
		why := fmt.Errorf("%s is not running (is its address here, or net.ipv4.ip_nonlocal_bind set?)", name)
		if p.running() {
			if why = d.answers(p); why == nil {
				return nil
			}
		} else if since >= profileAgain {
			since = 0
			if _, err := d.api("sofia profile " + name + " start"); err != nil {
				return err
			}
		}
		if !d.inTime(profileEvery) || d.r.opts.Wait(d.ctx, profileEvery) != nil {
			return &notProven{why.Error()}
		}
	}
}

func (d *dialogue) answers(p profile) error {
	if d.phase == Prepare {
		return nil
	}
	if d.r.opts.Answers == nil {
		return errors.New("nobody here can ask SIP OPTIONS")
	}
	at, err := p.address()
	if err != nil {
		return err
	}
	if err := d.r.opts.Answers(d.ctx, at, d.r.userAgent()); err != nil {
		return fmt.Errorf("%s runs, but %s", p.Name, oneLine(err.Error()))
	}
	return nil
}

// profile is an entry of `sofia xmlstatus`.
type profile struct {
	Name  string `xml:"name"`
	Type  string `xml:"type"`
	Data  string `xml:"data"`
	State string `xml:"state"`
}

func (p profile) running() bool { return strings.HasPrefix(p.State, "RUNNING") }

// address returns where the profile listens, from sip:mod_sofia@192.0.2.101:5060.
func (p profile) address() (netip.AddrPort, error) {
	_, at, _ := strings.Cut(p.Data, "@")
	at, _, _ = strings.Cut(at, ";")
	a, err := netip.ParseAddrPort(at)
	if err != nil {
		return a, fmt.Errorf("%s listens at %s, which is no address", p.Name, oneLine(p.Data))
	}
	return a, nil
}

// profile looks a profile up; the zero profile means that it is not listed. A profile
// with TLS is listed twice, the plain entry first.
func (d *dialogue) profile(name string) (profile, error) {
	const command = "sofia xmlstatus"
	text, err := d.conn.Whole(command) // asked many times, so the answer is not kept in the output
	if err != nil {
		return profile{}, fmt.Errorf("%s: %w", command, err)
	}
	var list struct {
		Profiles []profile `xml:"profile"`
	}
	dec := xml.NewDecoder(strings.NewReader(text))
	dec.CharsetReader = latin1
	if err := dec.Decode(&list); err != nil {
		return profile{}, fmt.Errorf("%s: not understood: %s", command, oneLine(err.Error()))
	}
	for _, p := range list.Profiles {
		if p.Name == name && p.Type == "profile" {
			return p, nil
		}
	}
	return profile{}, nil
}

// latin1 decodes ISO-8859-1, the charset that FreeSWITCH declares for its XML.
func latin1(charset string, in io.Reader) (io.Reader, error) {
	if !strings.EqualFold(charset, "ISO-8859-1") {
		return nil, fmt.Errorf("charset %s", charset)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	out := make([]rune, len(text))
	for i, b := range text {
		out[i] = rune(b)
	}
	return bytes.NewReader([]byte(string(out))), nil
}

// profileRecover takes over the calls of one profile from the node that had it.
func (d *dialogue) profileRecover(name string) error {
	return d.send("sofia profile " + name + " recover")
}

// pause stops new calls or lets them in, and checks that it worked.
func (d *dialogue) pause(what, want string) error {
	if _, err := d.api("fsctl " + what); err != nil {
		return err
	}
	text, err := d.api("fsctl pause_check")
	if err == nil && strings.TrimSpace(text) != want {
		err = fmt.Errorf("fsctl pause_check says %s after it, not %s", oneLine(text), want)
	}
	return err
}

// flush empties FreeSWITCH's own caches: its XML and, if mod_memcache is loaded, the
// memcached servers it knows.
func (d *dialogue) flush(string) error {
	if _, err := d.api("xml_flush_cache"); err != nil {
		return err
	}
	_, err := d.api("memcache flush")
	var no *eventsocket.Refusal
	if errors.As(err, &no) && strings.HasSuffix(no.Line, "Command not found!") {
		d.notes = append(d.notes, "mod_memcache is not loaded: only FreeSWITCH's XML cache was flushed")
		return nil
	}
	return err
}
