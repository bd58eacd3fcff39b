package hooks

import "fmt"

// ledger is what a Runner knows about one VIP's epochs. It decides which action may still
// start (design §5.5: no action of an old epoch starts once a newer one is known).
//
// A phase belongs either to an epoch that is being taken or held (prepare, acquire,
// unreachable) or to one that was let go or failed (release, retire, failed). "Old"
// differs between the two:
//
//   - prepare, acquire and unreachable of epoch e start only while e is the newest epoch
//     known anywhere, and this node has not let go of e itself. A newer epoch is another
//     acquisition: `sofia profile NAME recover` run for the old one would take the calls
//     of the new holder.
//   - release, retire and failed of epoch e run because another node has e+1, so a newer
//     epoch elsewhere must not stop them. They start until this same node prepares or
//     acquires a higher epoch: from then on, stopping a profile or flushing a cache for e
//     would hit what was just set up again.
//
// The rule applies at the start of each action and each retry, not only of each chain. A
// running action is left alone; its timeout ends it. Flush actions carry epoch 0 on their
// own lane, where all may start.
type ledger struct {
	Known uint64 `json:"known"` // newest epoch heard of, from any node
	Own   uint64 `json:"own"`   // newest epoch this node started to take
	Gone  uint64 `json:"gone"`  // newest epoch this node let go
}

// start records that a chain was handed in. It counts from then on, even before the
// chain's turn: a waiting acquire already supersedes the running release.
func (l *ledger) start(phase Phase, epoch uint64) {
	l.newer(epoch)
	switch {
	case phase.takes():
		l.Own = max(l.Own, epoch)
	case phase != Failed: // a failed VIP may still be held
		l.Gone = max(l.Gone, epoch)
	}
}

func (l *ledger) newer(epoch uint64) { l.Known = max(l.Known, epoch) }

// raised moves what this node holds to a higher epoch.
func (l *ledger) raised(to uint64) {
	l.newer(to)
	l.Own = max(l.Own, to)
}

// refuses says why no action of the phase and epoch may start, "" if one may.
func (l *ledger) refuses(phase Phase, epoch uint64) string {
	switch {
	case phase.takes() && epoch < l.Known:
		return fmt.Sprintf("epoch %d is over, epoch %d is known", epoch, l.Known)
	case phase.takes() && epoch <= l.Gone:
		return fmt.Sprintf("epoch %d was let go", epoch)
	case !phase.takes() && epoch < l.Own:
		return fmt.Sprintf("epoch %d is over, this node has taken epoch %d since", epoch, l.Own)
	}
	return ""
}
