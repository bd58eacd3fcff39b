package agent

import (
	"fmt"
	"time"

	"sipalive/config"
	"sipalive/control"
)

// alarm is a state that lasts until it is over. People are told when it begins and when
// it is over. If it comes and goes, they are told at most once a minute that it has
// begun; after that minute at the latest they know the current state.
type alarm struct {
	on, told bool // the state now, and the state as people know it
	since    time.Time
	at       time.Time // when people were last told that it has begun
	silent   int       // how often it has begun since without being told
	deferred bool      // the state at the end of the minute is told then
	ev       control.Event
	text     string
}

// alarm takes the state as it is now.
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

// waited runs at the end of the minute. It tells people if the alarm has begun again
// meanwhile and still lasts.
func (n *notifier) waited(what config.Notice, al *alarm) {
	al.deferred = false
	if al.on && !al.told {
		al.silent-- // this time it is told
	}
	n.tellAlarm(what, al)
}

// tellAlarm brings what people know up to date. Every node keeps track of it; the lowest
// live node tells people.
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
