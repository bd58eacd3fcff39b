package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sipalive/control"
	"sipalive/elect"
)

// outcome says what has changed since before. For a drain it first waits for the VIPs to
// leave.
func (a *Agent) outcome(ctx context.Context, c control.Command, before elect.Status, start time.Time) (string, error) {
	took := time.Since(start)
	if c.Kind == control.Stop {
		return "stopped", nil
	}
	var after elect.Status
	look := func() error {
		var st elect.Status // a variable of this call: the loop may still write it after an ask that failed
		err := a.ask(ctx, func() { st = a.Machine.Status() })
		if err == nil {
			after = st
		}
		return err
	}
	if err := look(); err != nil {
		return "", err
	}
	node := c.Node
	if node == "" {
		node = a.Self.Name
	}
	if c.Kind == control.Drain {
		took = a.awaitDrained(ctx, node, start, before, &after, look)
	}
	lines := a.changes(before, after, took)
	switch c.Kind {
	case control.Drain:
		if still := a.stillHolds(node, after); still != "" {
			return "", errors.New(strings.Join(append([]string{node + " is drained" + still}, lines...), "; "))
		}
		lines = append([]string{node + " is drained"}, lines...)
	case control.Adopt:
		lines = []string{"the file's voter list is active"}
	case control.Freeze:
		lines = append([]string{fmt.Sprintf("%s is frozen for %s: no SIP verdict takes a VIP from it (sipalive thaw %[1]s)", node, time.Duration(c.For))}, lines...)
	case control.Thaw:
		lines = append([]string{node + " is watched again"}, lines...)
	case control.Undrain:
		lines = append([]string{node + " may hold again"}, lines...)
	case control.Move:
		if len(lines) == 0 {
			lines = []string{fmt.Sprintf("%s is at %s already", c.VIP, c.Node)}
		}
	case control.Failback:
		if len(lines) == 0 {
			lines = []string{"nothing to move: every VIP is at home, or its home is not fit"}
		}
	}
	return strings.Join(lines, "; "), nil
}

// drainPatience is how long a drain waits for a VIP that does not leave, besides the
// actions' timeouts.
const drainPatience = 5 * time.Second

func (a *Agent) awaitDrained(ctx context.Context, node string, start time.Time, before elect.Status, after *elect.Status, look func() error) time.Duration {
	for time.Since(start) < drainPatience+prepareTimeout(a.Config())+roleReleaseTimeout(a.Config()) && (len(held(node, *after)) > 0 || onTheWay(before, *after)) {
		select {
		case <-ctx.Done():
			return time.Since(start)
		case <-time.After(5 * time.Millisecond):
		}
		if look() != nil {
			break
		}
	}
	return time.Since(start)
}

// onTheWay reports whether a VIP has left its old holder and no new holder has been heard
// yet.
func onTheWay(before, now elect.Status) bool {
	for _, v := range now.VIPs {
		if v.Holder == "" && holderOf(before, v.ID) != "" {
			return true
		}
	}
	return false
}

// holderOf returns the holder of a VIP in st; "" if the configuration of st has no such
// VIP.
func holderOf(st elect.Status, id elect.VIPID) elect.Node {
	for _, v := range st.VIPs {
		if v.ID == id {
			return v.Holder
		}
	}
	return ""
}

func held(node string, st elect.Status) []elect.VIPID {
	for _, n := range st.Nodes {
		if n.Name == elect.Node(node) {
			return n.Holds
		}
	}
	return nil
}

func (a *Agent) stillHolds(node string, st elect.Status) string {
	ids := held(node, st)
	if len(ids) == 0 {
		return ""
	}
	var names []string
	for _, id := range ids {
		names = append(names, a.names().byID[id].name)
	}
	return fmt.Sprintf(", but still holds %s: no other node can take it (see sipalive events)", strings.Join(names, ", "))
}

func (a *Agent) changes(before, after elect.Status, took time.Duration) (lines []string) {
	for _, v := range after.VIPs {
		was := holderOf(before, v.ID)
		if v.Holder == was || v.Holder == "" {
			continue
		}
		from := string(was)
		if from == "" {
			from = "nobody"
		}
		lines = append(lines, fmt.Sprintf("%s: %s -> %s in %s, epoch %d", a.names().byID[v.ID].name, from, v.Holder, roundMillis(took), v.Epoch))
	}
	return lines
}

func roundMillis(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}
