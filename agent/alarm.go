package agent

import (
	"fmt"
	"time"

	"sipalive/config"
	"sipalive/control"
)

// alarm is something that is so until it is over. People hear of both; of one that
// comes and goes, at most once a minute that it has come, but what they heard last is
// what is so, at the latest after that minute.
type alarm struct {
	on, told bool // what is so, and what people think
	since    time.Time
	at       time.Time // told last that it has come
	silent   int       // how often it has come since and was not told
	deferred bool      // what has come by the end of the minute is told then
	ev       control.Event
	text     string
}

// alarm takes what is so now.
func (n *notifier) alarm(what config.Notice, on bool, ev control.Event, text string) {
	if len(n.ways) == 0 {
		return
	}
	key := string(what) + " " + ev.VIP
	al := n.alarms[key]
	if al == nil {
		al = &alarm{}
		n.alarms[key] = al
	}
	if al.on == on {
		return
	}
	al.on, al.ev, al.text = on, ev, text
	if !on {
		al.text += fmt.Sprintf(", after %s", time.Since(al.since).Round(100*time.Millisecond))
		n.tellAlarm(what, al)
		return
	}
	al.since = time.Now()
	if wait := n.again - time.Since(al.at); wait > 0 {
		al.silent++
		if !al.deferred {
			al.deferred = true
			time.AfterFunc(wait, func() { n.a.recorder.post(func() { n.waited(what, al) }) })
		}
		return
	}
	n.tellAlarm(what, al)
}

// waited ends the minute: what has come back meanwhile and is not over is told.
func (n *notifier) waited(what config.Notice, al *alarm) {
	al.deferred = false
	if al.on && !al.told {
		al.silent-- // that is this one
	}
	n.tellAlarm(what, al)
}

// tellAlarm brings what people know up to date. Every node keeps that in mind, and the
// lowest live one says it.
func (n *notifier) tellAlarm(what config.Notice, al *alarm) {
	if al.on == al.told {
		return
	}
	al.told = al.on
	text := al.text
	if al.on {
		if al.silent > 0 {
			text += fmt.Sprintf(" (and %d times since %s)", al.silent, al.at.Format(time.TimeOnly))
		}
		al.at, al.silent = time.Now(), 0
	}
	if n.lowest() {
		n.deliver(what, al.ev, text)
	}
}
