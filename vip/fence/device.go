package fence

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"sipalive/platform"
)

// layers maps netlink's names for the kinds of device that can be fenced to what their
// frames begin with. Other kinds carry no IP, or no neighbour could ask there for a VIP.
// The loopback is not fenced: no other machine hears its packets.
var layers = map[string]layer{
	"ether": ethernet,
	"none":  network, "ppp": network, "ipip": network, "tunnel6": network, "sit": network, "gre": network,
	"unknown519": network, "unknown823": network, // ARPHRD_RAWIP, ARPHRD_IP6GRE
}

// chooseHooks finds out which hooks this kernel has. It puts the one we use first, then
// the one that an earlier agent may have used.
func (f *Fence) chooseHooks(forceClsact bool) {
	c := clsact{links: f.links, made: map[int]bool{}}
	for _, index := range f.record.Qdiscs {
		c.made[index] = true
	}
	x := tcx{ours: f.record.ours}
	f.hooks = []hook{c}
	if !x.absent() {
		f.hooks = []hook{x, c}
		if forceClsact {
			f.hooks = []hook{c, x}
		}
	}
	f.made = c.made
}

// A dev is a device that can be fenced.
type dev struct {
	name string
	layer
}

func (f *Fence) devices() (map[int]dev, error) {
	all, err := f.links.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	found := map[int]dev{}
	for _, l := range all {
		if kind, ok := layers[l.Attrs().EncapType]; ok {
			found[l.Attrs().Index] = dev{l.Attrs().Name, kind}
		}
	}
	return found, nil
}

// Sync fences new devices, and devices from which somebody removed the fence. If every
// device is fenced it changes nothing and costs a few µs per device. The error names a
// device that is not fenced.
func (f *Fence) Sync() error {
	if f.deadlines == nil {
		return nil
	}
	f.attaching.Lock()
	defer f.attaching.Unlock()
	f.partial = f.sync()
	return f.partial
}

func (f *Fence) sync() error {
	devices, err := f.devices()
	if err != nil {
		return err
	}
	maps.DeleteFunc(f.covered, func(index int, _ string) bool { _, there := devices[index]; return !there })
	var errs []error
	for index, d := range devices {
		switch err := f.attach(index, d.layer); {
		case err == nil:
			f.covered[index] = d.name
		case errors.Is(err, unix.ENODEV): // the device was removed meanwhile
			delete(f.covered, index)
		default:
			delete(f.covered, index)
			errs = append(errs, explain(fmt.Sprintf("attach to %s", d.name), err))
		}
	}
	if len(errs) > 0 {
		return errs[0]
	}
	return f.note()
}

// attach puts our programs in place before it removes those of an earlier agent, so the
// device is never unfenced.
func (f *Fence) attach(index int, l layer) error {
	for _, d := range []direction{ingress, egress} {
		if err := f.hooks[0].attach(index, d, f.programs[l][d]); err != nil {
			return err
		}
	}
	for _, other := range f.hooks[1:] {
		if f.cleaned {
			break
		}
		for _, d := range []direction{ingress, egress} {
			if err := other.detach(index, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// note updates the record once every device has our programs and none of an earlier
// agent.
func (f *Fence) note() error {
	made := slices.Sorted(maps.Keys(f.made))
	if f.cleaned && slices.Equal(made, f.record.Qdiscs) {
		return nil
	}
	f.record.Qdiscs, f.record.Programs = made, nil
	for _, l := range f.programs {
		f.record.Programs = append(f.record.Programs, l[ingress].id, l[egress].id)
	}
	f.cleaned = true
	return f.record.write()
}

// removeAll removes all our programs from every device, then the record.
func (f *Fence) removeAll() error {
	f.attaching.Lock()
	defer f.attaching.Unlock()
	devices, err := f.devices()
	if err != nil {
		return err
	}
	var errs []error
	for index, d := range devices {
		for _, h := range f.hooks {
			for _, way := range []direction{ingress, egress} {
				if err := h.detach(index, way); err != nil && !errors.Is(err, unix.ENODEV) {
					errs = append(errs, explain(fmt.Sprintf("remove the fence from %s", d.name), err))
				}
			}
		}
	}
	clear(f.covered)
	if len(errs) > 0 {
		return errs[0]
	}
	return f.record.remove()
}

// Cover makes sure that the device of this name is fenced before a VIP is bound to it:
// the device may have just appeared. It takes about 1 µs if the device is already fenced.
func (f *Fence) Cover(name string) error {
	if f.deadlines == nil {
		return nil
	}
	index, err := platform.InterfaceIndex(f.ask, name)
	if err != nil {
		return fmt.Errorf("fence %s: %w", name, err)
	}
	f.attaching.Lock()
	defer f.attaching.Unlock()
	if _, done := f.covered[index]; done {
		return nil
	}
	f.partial = f.sync()
	if _, done := f.covered[index]; done {
		return nil
	}
	if f.partial != nil {
		return fmt.Errorf("fence %s: %w", name, f.partial)
	}
	return fmt.Errorf("fence %s: not a kind of device that can be fenced", name)
}

// Attached names the devices that are fenced, sorted.
func (f *Fence) Attached() []string {
	f.attaching.Lock()
	defer f.attaching.Unlock()
	return slices.Sorted(maps.Values(f.covered))
}
