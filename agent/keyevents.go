package agent

import (
	"errors"
	"fmt"
	"time"

	"sipalive/control"
	"sipalive/elect"
	"sipalive/keyring"
)

// keyEvent writes into the journal what happened to this node's keys.
func (r *recorder) keyEvent(text string) {
	r.a.Journal.Add(control.Event{Time: control.Stamp{Time: time.Now()}, Node: r.a.Self.Name, Kind: control.KindKey, Text: text})
}

// keyChanged records one step of a rotation that this node has made.
func (r *recorder) keyChanged(asked elect.Node, before, after keyring.Ring) {
	r.post(func() {
		was, is := before.View(), after.View()
		what, id := keyring.Seals.String(), is[0]
		switch {
		case len(is) > len(was):
			what, id = keyring.Accepts.String(), is[len(is)-1]
		case len(is) == 1:
			what = "key rotated"
		}
		text := fmt.Sprintf("%s: %s", what, id)
		r.a.Log.Info(what, "node", r.a.Self.Name, "peer", string(asked), "reason", text)
		r.keyEvent(fmt.Sprintf("%s (asked by %s)", text, asked))
	})
}

var errUnknownKey = errors.New("no key of ours opens its packets: it has another key file, or somebody forges them (give it the key file of the others, and sipalive reload there)")

// keyUnknown records that this node cannot open a peer's packets, or can again.
func (r *recorder) keyUnknown(peer elect.Node, is bool) {
	r.post(func() {
		if !is {
			r.a.Log.Info("known key", "node", r.a.Self.Name, "peer", string(peer))
			r.keyEvent(string(peer) + " speaks with a key of ours again")
			return
		}
		r.a.Log.Warn("unknown key", "node", r.a.Self.Name, "peer", string(peer), "err", errUnknownKey)
		r.keyEvent(string(peer) + " speaks with an unknown key")
	})
}

// keyStandsStill records a rotation that did not come to its end.
func (r *recorder) keyStandsStill(text string) {
	r.post(func() {
		r.a.Log.Warn("key rotation has not ended", "node", r.a.Self.Name, "err", text)
		r.keyEvent("key rotation has not ended: " + text)
	})
}
