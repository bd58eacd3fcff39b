package elect

// RouterState says whether the router reaches a VIP at its holder (§5.4).
type RouterState uint8

// The states, as `status --json` spells them (§8). Unknown: the router has never
// answered anything that would tell.
const (
	RouterUnknown RouterState = iota
	RouterUnproven
	RouterProven
)

func (s RouterState) String() string {
	return [...]string{"unknown", "unproven", "proven"}[min(s, RouterProven)]
}

// Router is the network's word about a VIP that this node holds. It moves
// nothing: the heartbeat tells it to the others.
type Router struct {
	VIP   VIPID
	State RouterState
}

func (Router) event() {}

func (m *Machine) onRouter(e Router) {
	v := m.known[e.VIP]
	if v == nil || v.phase != holding || v.router == e.State {
		return
	}
	v.router = e.State
	m.beatNow = true
}
