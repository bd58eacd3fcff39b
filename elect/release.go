package elect

import "slices"

// pendingRelease is a release under way. It is repeated until everybody it is for has
// acknowledged it, or until the grants have ended by themselves.
type pendingRelease struct {
	r       Release
	missing []bool // by peer index
	left    int
	sent    Instant
	end     Instant
}

// releaseTo sends a release to every other voter and to the successor.
func (m *Machine) releaseTo(v *vip, r Release) {
	pr := &pendingRelease{r: r, missing: make([]bool, len(m.peers)), end: m.now.Add(m.cfg.Lease)}
	for _, p := range m.peers {
		if p != m.self && (m.lists.Active.Has(p.Name) || p.Name == r.Successor) {
			pr.missing[p.index] = true
			pr.left++
		}
	}
	if pr.left == 0 {
		return
	}
	m.releases = append(m.releases, pr)
	m.putRelease(pr)
}

func (m *Machine) putRelease(pr *pendingRelease) {
	pr.sent = m.now
	for i, missing := range pr.missing {
		if missing {
			m.send(m.peers[i], pr.r)
		}
	}
}

func (m *Machine) repeatReleases() {
	m.releases = slices.DeleteFunc(m.releases, func(pr *pendingRelease) bool {
		if pr.left == 0 || m.now >= pr.end {
			return true
		}
		if m.now >= pr.sent.Add(m.pace()) {
			m.putRelease(pr)
		}
		m.due(pr.sent.Add(m.pace()))
		return false
	})
}

func (m *Machine) onReleased(p *peer, r Released) {
	for _, pr := range m.releases {
		if pr.r.VIP == r.VIP && pr.r.Epoch == r.Epoch && pr.missing[p.index] {
			pr.missing[p.index] = false
			pr.left--
		}
	}
}

// giveUpAtStop, when the agent has to end, lets go of what no other node can take, or
// took in time. It sets Stopped once nothing is held and no release is under way.
func (m *Machine) giveUpAtStop() {
	if !m.stopping {
		return
	}
	left := len(m.releases)
	for _, v := range m.everyVIP() {
		if v.serves() && (m.now >= m.stopBy || v.move == nil) {
			m.handOver(v, Release{Cause: CauseStop})
		}
		if v.phase == holding || v.phase == unbinding {
			left++
		}
	}
	if left == 0 {
		m.eff.Stopped = true
		m.answerCommand(m.stopID, "")
	}
	m.due(max(m.stopBy, m.now.Add(m.pace())))
}
