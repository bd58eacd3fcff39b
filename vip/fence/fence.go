// Package fence is the kernel's own end of a lease (docs/design.md §5.2): a program on
// every device that silences a VIP from its deadline on, even if the agent is frozen or
// dead.
//
// Every node has every configured VIP in its map, with deadline 0 for a VIP that it does
// not hold. So a VIP that is bound without a lease is silent too. The programs belong to
// the devices, not to this process: a killed agent leaves them behind, with deadlines
// that nobody moves any more.
//
// If this node bridges or routes for other machines, those machines cannot reach, through
// it, a VIP that another node holds: the fence drops what comes in for that VIP.
package fence

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Mode is what the configuration asks for.
type Mode string

// The modes. Auto uses what the machine has.
const (
	Auto     Mode = "auto"     // bpf and lifetime; lifetime alone if bpf is not available
	BPF      Mode = "bpf"      // bpf, or an error
	Lifetime Mode = "lifetime" // addresses that the kernel removes by itself
	None     Mode = "none"
)

// Options say what to fence.
type Options struct {
	Mode Mode
	// VIPs maps each VIP to the end of its lease on the boot clock, in ns. The end is 0,
	// or that of a lease that an earlier agent held and this agent goes on asking for.
	VIPs map[netip.Addr]int64
	// Record is a file in the runtime directory that names the programs of the agent
	// before this one. Required; the agent's lock guards it.
	Record string
	// Clsact makes the fence use the hook of kernels before 6.6 on any kernel.
	Clsact bool
}

// maxVIPs is the map's capacity; an entry takes 48 bytes of kernel memory.
const maxVIPs = 1024

// Fence is open until Close. Its methods may be called from any goroutine, in the network
// namespace that Open was called in.
type Fence struct {
	mode   Mode
	absent error // why there is no bpf, in mode auto
	record *record

	setting   sync.Mutex
	slots     map[netip.Addr]*slot
	deadlines *ebpf.Map // nil: no bpf
	drops     *ebpf.Map

	attaching sync.Mutex
	links     *netlink.Handle
	ask       int    // a socket to look up interface indexes
	hooks     []hook // the one we use, then the one that an earlier agent may have used
	cleaned   bool   // no program of an earlier agent is left
	programs  [2][2]loaded
	covered   map[int]string // interface index to name of the fenced devices
	made      map[int]bool   // devices on which we made the clsact
	partial   error          // why some device is not fenced
}

// slot is a map entry in the kernel's form.
type slot struct {
	key   [16]byte
	until int64
}

func newSlot(vip netip.Addr) *slot { return &slot{key: vip.Unmap().As16()} }

// Open fences every device of this network namespace. It replaces the fence that an
// earlier agent left, without a moment unfenced. In mode auto it is no error if bpf is
// not available: see Explain.
func Open(o Options) (*Fence, error) {
	f := &Fence{mode: o.Mode, covered: map[int]string{}, slots: map[netip.Addr]*slot{}}
	var err error
	if f.record, err = openRecord(o.Record); err != nil {
		return nil, err
	}
	if f.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if f.ask, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		f.links.Close()
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	f.chooseHooks(o.Clsact)
	inherited := len(f.record.Programs) > 0
	if o.Mode == Auto || o.Mode == BPF {
		err = f.openBPF(o)
	}
	if err != nil && o.Mode == BPF {
		f.release()
		return nil, fmt.Errorf("fence = \"bpf\": %w", err)
	}
	f.absent = err
	if f.deadlines == nil || err != nil {
		f.releaseBPF()
		// Otherwise the programs that an earlier agent left would silence its VIPs for
		// ever.
		if err := f.removeAll(); err != nil && inherited {
			f.release()
			return nil, fmt.Errorf("remove the fence of an earlier agent: %w", err)
		}
	}
	return f, nil
}

// openBPF loads and attaches the programs. After an error, programs already attached
// stay: they are in the record.
func (f *Fence) openBPF(o Options) (err error) {
	f.deadlines, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: namePrefix + "until", Type: ebpf.Hash, KeySize: 16, ValueSize: 8, MaxEntries: maxVIPs,
	})
	if err != nil {
		return explain("make a map", err)
	}
	f.drops, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: namePrefix + "drops", Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1,
	})
	if err != nil {
		return explain("make a map", err)
	}
	for vip, until := range o.VIPs {
		s := newSlot(vip)
		s.until = until
		f.slots[vip.Unmap()] = s
		if err := f.put(s); err != nil {
			return fmt.Errorf("set the deadline of %s: %w", vip, err)
		}
	}
	if err := f.load(); err != nil {
		return explain("load a program", err)
	}
	if err := f.record.write(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil && (o.Mode == BPF || len(f.covered) == 0) {
		return err
	}
	return nil
}

func (f *Fence) load() error {
	for _, l := range []layer{ethernet, network} {
		for _, d := range []direction{ingress, egress} {
			p, err := ebpf.NewProgramWithOptions(program(d, l, f.deadlines, f.drops), ebpf.ProgramOptions{LogDisabled: true})
			if err != nil {
				return err
			}
			f.programs[l][d].Program = p
			info, err := p.Info()
			if err != nil {
				return err
			}
			f.programs[l][d].id, _ = info.ID()
			f.record.Programs = append(f.record.Programs, f.programs[l][d].id)
		}
	}
	return nil
}

// Set moves the end of a VIP's lease to until, in ns of the boot clock; 0 ends it now.
// The change is in effect on every device when Set returns. Set takes about 1 µs and
// allocates nothing. Call it before the address is bound, at every renewal, and with 0
// before the address is removed. Without bpf it does nothing.
func (f *Fence) Set(vip netip.Addr, until int64) error {
	if f.deadlines == nil {
		return nil
	}
	f.setting.Lock()
	defer f.setting.Unlock()
	s := f.slots[vip]
	if s == nil {
		return fmt.Errorf("set the deadline of %s: not a configured VIP", vip)
	}
	s.until = until
	if err := f.put(s); err != nil {
		return fmt.Errorf("set the deadline of %s: %w", vip, err)
	}
	return nil
}

func (f *Fence) put(s *slot) error {
	return f.deadlines.Update(unsafe.Pointer(&s.key), unsafe.Pointer(&s.until), ebpf.UpdateAny)
}

// Manage replaces the list of VIPs after a reload. A new VIP is silent until Set. The
// fence no longer applies to a VIP that leaves the list.
func (f *Fence) Manage(vips []netip.Addr) error {
	if f.deadlines == nil {
		return nil
	}
	f.setting.Lock()
	defer f.setting.Unlock()
	wanted := map[netip.Addr]bool{}
	for _, vip := range vips {
		vip = vip.Unmap()
		wanted[vip] = true
		if f.slots[vip] != nil {
			continue
		}
		s := newSlot(vip)
		if err := f.put(s); err != nil {
			return fmt.Errorf("fence %s: %w", vip, err)
		}
		f.slots[vip] = s
	}
	for vip, s := range f.slots {
		if wanted[vip] {
			continue
		}
		if err := f.deadlines.Delete(unsafe.Pointer(&s.key)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove the fence of %s: %w", vip, err)
		}
		delete(f.slots, vip)
	}
	return nil
}

// Drops returns how many packets the fence has dropped: those to this host and those from
// it. On a node that does not hold a VIP, every ARP or ND question for it is one of them.
func (f *Fence) Drops() (in, out uint64) {
	var both [2]uint64
	if f.drops == nil || f.drops.Lookup(uint32(0), &both) != nil {
		return 0, 0
	}
	return both[ingress], both[egress]
}

// Close closes what this process has of the fence. With remove it also takes the fence
// off the devices: for a clean stop, when nothing is bound any more. Without remove the
// fence stays for the next agent.
func (f *Fence) Close(remove bool) error {
	var err error
	if remove && f.deadlines != nil {
		err = f.removeAll()
	}
	f.release()
	return err
}

func (f *Fence) release() {
	f.releaseBPF()
	f.links.Close()
	_ = unix.Close(f.ask)
}

func (f *Fence) releaseBPF() {
	for _, l := range f.programs {
		for _, p := range l {
			if p.Program != nil {
				_ = p.Close()
			}
		}
	}
	for _, m := range []*ebpf.Map{f.deadlines, f.drops} {
		if m != nil {
			_ = m.Close()
		}
	}
	f.programs, f.deadlines, f.drops = [2][2]loaded{}, nil, nil
}
