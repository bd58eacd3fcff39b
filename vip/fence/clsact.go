package fence

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// clsact is the hook before Linux 6.6: a filter on the device's clsact queueing
// discipline. The kernel replaces a filter of the same handle in one step.
type clsact struct {
	links *netlink.Handle
	made  map[int]bool // devices on which we made the clsact
}

// The place of our filter: the first priority, and a handle that nobody else uses.
const (
	clsactPriority = 1
	clsactHandle   = 0x51ba
)

func (clsact) String() string { return "clsact" }

func (d direction) clsact() uint32 {
	return [...]uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS}[d]
}

func (c clsact) attach(index int, d direction, p loaded) error {
	there, err := c.filters(index, d)
	if err != nil {
		return err
	}
	for _, f := range there {
		if f.Handle != clsactHandle || f.Priority != clsactPriority {
			continue
		}
		if f.Id == int(p.id) {
			return nil
		}
		if !strings.HasPrefix(f.Name, namePrefix) {
			return fmt.Errorf("attach filter: its place is taken by %s (see tc filter show)", f.Name)
		}
	}
	if err := c.makeQdisc(index); err != nil {
		return err
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: d.clsact(), Handle: clsactHandle, Priority: clsactPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: p.FD(), Name: namePrefix + d.String(), DirectAction: true,
	}
	if err := c.links.FilterReplace(filter); err != nil {
		return fmt.Errorf("attach filter with priority %d (is another there? see tc filter show): %w", clsactPriority, err)
	}
	return nil
}

func (c clsact) makeQdisc(index int) error {
	err := c.links.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
	if errors.Is(err, unix.EEXIST) {
		return c.isClsact(index)
	}
	if err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	c.made[index] = true
	return nil
}

// isClsact checks that the qdisc in the place of a clsact is one. A qdisc ingress has the
// same handle. It takes filters for egress into its only list, which it runs on incoming
// packets (Linux 6.18, net/sched/sch_ingress.c). There, one of our two filters would
// replace the other, without an error.
func (c clsact) isClsact(index int) error {
	all, err := c.links.QdiscList(device(index))
	if err != nil {
		return fmt.Errorf("list qdiscs: %w", err)
	}
	for _, q := range all {
		if q.Attrs().Parent != netlink.HANDLE_CLSACT {
			continue
		}
		if kind := q.Type(); kind != "clsact" {
			return fmt.Errorf("add clsact: its place is taken by qdisc %s, which has no egress (put clsact there instead, which runs the same filters, or use Linux 6.6 or later)", kind)
		}
		return nil
	}
	return fmt.Errorf("add clsact: %w, and yet none is there (did another process take it off?)", unix.EEXIST)
}

// detach removes our filters. It also removes the queueing discipline, once that is empty
// and if we made it.
func (c clsact) detach(index int, d direction) error {
	there, err := c.filters(index, d)
	if err != nil {
		return err
	}
	for _, f := range there {
		if !strings.HasPrefix(f.Name, namePrefix) {
			continue
		}
		if err := c.links.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove filter: %w", err)
		}
	}
	if !c.made[index] {
		return nil
	}
	for _, d := range []direction{ingress, egress} {
		if left, err := c.links.FilterList(device(index), d.clsact()); err != nil || len(left) > 0 {
			return nil
		}
	}
	delete(c.made, index)
	err = c.links.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove clsact: %w", err)
	}
	return nil
}

// filters lists the BPF filters of a device: none if it has no clsact, which the kernel
// reports as EINVAL.
func (c clsact) filters(index int, d direction) ([]*netlink.BpfFilter, error) {
	all, err := c.links.FilterList(device(index), d.clsact())
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list filters: %w", err)
	}
	var found []*netlink.BpfFilter
	for _, f := range all {
		if b, ok := f.(*netlink.BpfFilter); ok {
			found = append(found, b)
		}
	}
	return found, nil
}

func device(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}
