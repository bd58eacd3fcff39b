package sim

import (
	"container/heap"
	"math"

	"sipalive/elect"
	"sipalive/member"
)

const never = Time(math.MaxInt64)

// item is something that happens at a time: a function call, an event for a machine (void
// if its agent has ended since), or the arrival of a packet.
type item struct {
	at    Time
	order uint64
	f     func()
	n     *Node
	life  int
	ev    elect.Event
	hdr   member.Header
	msg   elect.Message
	pkt   bool
}

func (it *item) run() {
	switch {
	case it.f != nil:
		it.f()
	case it.pkt:
		it.n.arrive(it.hdr, it.msg)
	case it.n.life == it.life:
		it.n.Step(it.ev)
	}
}

// queue is a heap ordered by time, then by order of scheduling.
type queue []*item

func (q queue) less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}

func (q *queue) push(it item) {
	*q = append(*q, &it)
	h := *q
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.less(i, up) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

func (q *queue) pop() *item {
	h := *q
	top := h[0]
	last := len(h) - 1
	h[0], h[last] = h[last], nil
	h = h[:last]
	*q = h
	for i := 0; ; {
		kid := 2*i + 1
		if kid >= last {
			break
		}
		if kid+1 < last && h.less(kid+1, kid) {
			kid++
		}
		if !h.less(kid, i) {
			break
		}
		h[i], h[kid] = h[kid], h[i]
		i = kid
	}
	return top
}

// alarms is a heap of all nodes, ordered by wake-up time, then by node index.
type alarms []*Node

func (a alarms) Len() int { return len(a) }
func (a alarms) Less(i, j int) bool {
	return a[i].wake < a[j].wake || a[i].wake == a[j].wake && a[i].Index < a[j].Index
}
func (a alarms) Swap(i, j int) { a[i], a[j] = a[j], a[i]; a[i].alarm, a[j].alarm = i, j }
func (a alarms) Push(any)      { panic("sim: a node more") }
func (a alarms) Pop() any      { panic("sim: a node less") }

func (n *Node) wakeAt(t Time) {
	n.wake = t
	heap.Fix(&n.w.alarms, n.alarm)
}
