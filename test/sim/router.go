package sim

import (
	"math/rand/v2"
	"time"

	"sipalive/elect"
	"sipalive/member"
)

// Router is the gateway of every node. It relays between its ports or not, and its table
// says which node has each VIP. It has its own stream of random numbers, so that runs
// without a router stay as they always were.
type Router struct {
	Relays bool
	Down   bool
	Loss   float64 // share lost, each way, of ARP, of its questions and answers, and of what it relays

	w     *World
	rand  *rand.Rand
	up    []int   // by node index: more than 0: the node's frames do not reach the router
	down  []int   // by node index: more than 0: the router's frames do not reach the node
	table []*Node // by VIP: the node that gets the VIP's packets; nil: the router asks first
	// answered is, by VIP and node, when the node's question from the VIP's address was
	// last answered.
	answered [][]Time
	seen     [][]Time         // by VIP and node: since when the router sees the node as an owner
	linked   []Time           // by node: since when its agent can hear and be heard through the router
	parted   Time             // when two nodes last could not know of each other
	newly    time.Duration    // how long an owner that comes into sight may stay unknown to the others
	longest  [2]time.Duration // two owners visible: with the relay, and without
	overlaps [2]int
	taken    int // VIPs taken by survivors
	inPlace  int
	back     int // survivors' holds that became leases
}

// AddRouter gives the world a gateway.
func (w *World) AddRouter(relays bool, seed uint64) *Router {
	r := &Router{Relays: relays, w: w, rand: rand.New(rand.NewPCG(seed, 0x60)), up: make([]int, len(w.Nodes)), down: make([]int, len(w.Nodes)),
		table: make([]*Node, len(w.VIPs)), answered: make([][]Time, len(w.VIPs)),
		linked: make([]Time, len(w.Nodes))}
	for i := range r.answered {
		r.answered[i] = make([]Time, len(w.Nodes))
		r.seen = append(r.seen, make([]Time, len(w.Nodes)))
		for j := range r.answered[i] {
			r.answered[i][j] = -never
		}
	}
	w.Router = r
	return r
}

func (r *Router) lost() bool { return r.Loss > 0 && r.rand.Float64() < r.Loss }

func (r *Router) hears(n *Node) bool {
	return !r.Down && !n.Off && r.up[n.Index] == 0 && !r.lost()
}

func (r *Router) reaches(n *Node) bool {
	return !r.Down && !n.Off && r.down[n.Index] == 0 && !r.lost()
}

// sees reports whether the router would get an answer from the node for the VIP. Owners
// are counted by this.
func (r *Router) sees(n *Node, vip int) bool {
	return n.effective(vip) && !r.Down && r.up[n.Index] == 0 && r.down[n.Index] == 0
}

// hop returns the time that one frame takes.
func (r *Router) hop() time.Duration {
	return r.w.Net.Base + time.Duration(r.rand.Int64N(int64(r.w.Net.Jitter+50*time.Microsecond)))
}

// relay passes a packet on, if the router relays.
func (r *Router) relay(from, to *Node, h member.Header, msg elect.Message) {
	r.w.At(r.hop(), func() {
		if !r.Relays || from.walls > 0 || to.walls > 0 || !r.hears(from) {
			return
		}
		r.w.At(r.hop(), func() {
			if r.reaches(to) {
				to.arriveRelayed(h, msg)
			}
		})
	})
}

// announce sends one announcement of a VIP, to the router and to the other nodes.
func (r *Router) announce(n *Node, vip int) {
	if r.hears(n) {
		r.table[vip] = n
	}
	for _, o := range r.w.Nodes {
		if o != n && r.passes(n, o) {
			o.later(r.hop(), elect.Sign{VIP: r.w.VIPs[vip].ID, Node: n.Name})
		}
	}
}

// passes reports whether a frame gets from one node to another.
func (r *Router) passes(a, b *Node) bool {
	return !a.Off && !b.Off && a.cut[b.Index] == 0 && !r.lost()
}

// announceAll follows the schedule of announcements of a holder by lease (§5.3).
func (r *Router) announceAll(n *Node, vip int) {
	since := n.bound[vip].since
	again := func() {
		if b := &n.bound[vip]; b.on && b.since == since && !b.survivor && n.effective(vip) {
			r.announce(n, vip)
		}
	}
	for _, d := range []time.Duration{0, 100 * time.Millisecond, 1100 * time.Millisecond, 2200 * time.Millisecond, 4400 * time.Millisecond} {
		r.w.At(d, again)
	}
	var refresh func()
	refresh = func() {
		if b := &n.bound[vip]; b.on && b.since == since {
			again()
			r.w.At(30*time.Second, refresh)
		}
	}
	r.w.At(30*time.Second, refresh)
}

// ask carries out a survivor's question.
func (r *Router) ask(n *Node, q elect.Question) {
	i, sent := r.w.vipIndex(q.VIP), n.local()
	switch q.Kind {
	case elect.AskGateway:
		if r.hears(n) && r.reaches(n) {
			n.later(2*r.hop(), elect.Evidence{VIP: q.VIP, Kind: q.Kind, Sent: sent})
		}
	case elect.AskRouter:
		if q.Announce {
			r.announce(n, i)
		}
		r.answerVIP(n, i, sent)
	case elect.AskOwner:
		n.later(r.hop(), elect.Evidence{VIP: q.VIP, Kind: q.Kind, Sent: sent})
		for _, o := range r.w.Nodes {
			if o == n || !r.passes(n, o) {
				continue
			}
			o.later(r.hop(), elect.Sign{VIP: q.VIP, Node: n.Name, Asks: true})
			r.w.At(r.hop(), func() {
				if o.effective(i) && r.passes(o, n) {
					n.later(r.hop(), elect.Sign{VIP: q.VIP, Node: o.Name})
				}
			})
		}
	}
}

// answerVIP answers a question from the VIP's address, but only to the node that the
// table names. If that node no longer answers, the router asks again who has the VIP.
func (r *Router) answerVIP(n *Node, i int, sent elect.Instant) {
	if !n.effective(i) || !r.hears(n) {
		return
	}
	if t := r.table[i]; t == nil || !r.sees(t, i) && r.rand.IntN(4) == 0 {
		r.table[i] = nil
		for _, k := range r.rand.Perm(len(r.w.Nodes)) {
			if o := r.w.Nodes[k]; r.sees(o, i) && !r.lost() && !r.lost() {
				r.table[i] = o
				break
			}
		}
	}
	if r.table[i] == n && r.reaches(n) {
		r.answered[i][n.Index] = r.w.Now
		n.later(2*r.hop(), elect.Evidence{VIP: r.w.VIPs[i].ID, Kind: elect.AskRouter, Sent: sent})
	}
}

func (r *Router) heal() {
	r.Down, r.Loss = false, 0
	clear(r.up)
	clear(r.down)
}

// Unplug cuts the node off the router, both ways, or connects it again.
func (r *Router) Unplug(n *Node, off bool) {
	d := 1
	if !off {
		d = -1
	}
	r.up[n.Index] += d
	r.down[n.Index] += d
}

// Wall stops every agent packet at the node, or lets them pass again.
func (n *Node) Wall(on bool) {
	n.walls++
	if !on {
		n.walls -= 2
	}
}
