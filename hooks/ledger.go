package hooks

import "fmt"

// ledger is what a Runner knows about one VIP's epochs, and the rule which
// action may still start (design §5.5: no action of an old epoch starts once a
// newer one is known).
//
// A phase belongs either to an epoch that is being taken (prepare, acquire) or
// to one that was let go (release, retire), and "old" means something else for
// each:
//
//   - prepare and acquire of epoch e start only while e is the newest epoch known
//     anywhere, and this node has not let go of e itself. A newer epoch is another
//     acquisition: `sofia profile NAME recover` run for the old one would take the
//     calls of the new holder.
//   - release and retire of epoch e run because another node has e+1, so a newer
//     epoch elsewhere must not stop them. They start until this same node prepares
//     or acquires a higher epoch: from then on stopping a profile or flushing a
//     cache for e would hit what was just set up again.
//
// The rule is applied at the start of each action, not only of each chain. An
// action that has started is left alone; its timeout ends it.
type ledger struct {
	known uint64 // newest epoch heard of, from whatever node
	own   uint64 // newest epoch this node started to take
	gone  uint64 // newest epoch this node let go
}

// start records that a chain was handed in. It counts from then on, before the
// chain's turn has come: an acquire that waits already supersedes the release
// that runs.
func (l *ledger) start(phase Phase, epoch uint64) {
	l.newer(epoch)
	if phase.takes() {
		l.own = max(l.own, epoch)
	} else {
		l.gone = max(l.gone, epoch)
	}
}

func (l *ledger) newer(epoch uint64) { l.known = max(l.known, epoch) }

// raised moves what this node holds from one epoch to a higher one.
func (l *ledger) raised(to uint64) {
	l.newer(to)
	l.own = max(l.own, to)
}

// refuses says why no action of the phase and epoch may start, "" if it may.
func (l *ledger) refuses(phase Phase, epoch uint64) string {
	switch {
	case phase.takes() && epoch < l.known:
		return fmt.Sprintf("epoch %d is over, epoch %d is known", epoch, l.known)
	case phase.takes() && epoch <= l.gone:
		return fmt.Sprintf("epoch %d was let go", epoch)
	case !phase.takes() && epoch < l.own:
		return fmt.Sprintf("epoch %d is over, this node has taken epoch %d since", epoch, l.own)
	}
	return ""
}
