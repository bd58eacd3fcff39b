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

// verb is a ready-made freeswitch command: what an operator means, where
// FreeSWITCH's own command says too little about whether it came to pass.
type verb struct {
	argument string // what it takes, "" for nothing
	run      func(d *dialogue, argument string) error
}

// verbs are the words that no FreeSWITCH command begins with. An element of an
// action's list that begins with another is sent as it is.
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

// notProven is why a profile that was started is not taken for running.
type notProven struct{ why string }

func (e *notProven) Error() string { return e.why }

// How often a profile that was started is looked at, and how often it is started
// again: FreeSWITCH itself tries a bind that failed again after 5 s, three times,
// and a profile on its way up answers after 1.13 s (measured, 1.11.1).
const (
	profileEvery = 200 * time.Millisecond
	profileAgain = 3 * time.Second
)

// profileStart starts a profile unless it runs, and ends when it does: `sofia
// xmlstatus` lists it as running, and its address answers OPTIONS. FreeSWITCH's
// "started successfully" is said of a failed bind too. On the successor of a move,
// in prepare, OPTIONS would reach the old holder and is left out.
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

// address is where the profile listens, of sip:mod_sofia@192.0.2.101:5060.
func (p profile) address() (netip.AddrPort, error) {
	_, at, _ := strings.Cut(p.Data, "@")
	at, _, _ = strings.Cut(at, ";")
	a, err := netip.ParseAddrPort(at)
	if err != nil {
		return a, fmt.Errorf("%s listens at %s, which is no address", p.Name, oneLine(p.Data))
	}
	return a, nil
}

// profile looks a profile up; one that is not listed is none. Of a profile with
// TLS too, which is listed twice, the plain entry comes first.
func (d *dialogue) profile(name string) (profile, error) {
	const command = "sofia xmlstatus"
	text, err := d.conn.Whole(command) // many times, so it is not kept in the output
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

// latin1 reads what FreeSWITCH declares its XML to be.
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

// profileRecover takes the calls of one profile over from the node that had it.
func (d *dialogue) profileRecover(name string) error {
	return d.send("sofia profile " + name + " recover")
}

// pause stops or lets in new calls, and asks whether it came to pass.
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

// flush empties what FreeSWITCH itself has cached: its XML, and, where mod_memcache
// is loaded, the memcached servers it knows.
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
