package fence

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// loaded is a program in the kernel and its id. The kernel gives no id twice until 2^31
// programs have been loaded.
type loaded struct {
	*ebpf.Program
	id ebpf.ProgramID
}

// hook attaches programs to a device so that they stay when this process ends.
type hook interface {
	// attach makes p the first program of the device and then removes any other of ours.
	// If p is already attached, attach leaves it where it is.
	attach(index int, d direction, p loaded) error
	// detach removes every program of ours.
	detach(index int, d direction) error
	String() string
}

// tcx is the hook of Linux 6.6: a list of programs per device and direction. It uses no
// link, so the device itself holds the program.
type tcx struct {
	ours func(ebpf.ProgramID) bool
}

func (tcx) String() string { return "tcx" }

func (d direction) tcx() ebpf.AttachType {
	return [...]ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress}[d]
}

// absent reports whether the kernel has no tcx: it then does not know the query. A kernel
// that refuses to answer us may have it.
func (tcx) absent() bool {
	_, _, err := query(loopbackIndex, ingress)
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)
}

// loopbackIndex is the index of lo in every network namespace.
const loopbackIndex = 1

func (x tcx) attach(index int, d direction, p loaded) error {
	err := x.change(index, d, func(list []ebpf.ProgramID, revision uint64) error {
		if slices.Contains(list, p.id) {
			return nil
		}
		return link.RawAttachProgram(link.RawAttachProgramOptions{
			Target: index, Program: p.Program, Attach: d.tcx(), Anchor: link.Head(), ExpectedRevision: revision,
		})
	})
	if err != nil {
		return err
	}
	return x.remove(index, d, func(id ebpf.ProgramID) bool { return id != p.id && x.ours(id) })
}

func (x tcx) detach(index int, d direction) error { return x.remove(index, d, x.ours) }

// remove detaches the programs that unwanted selects, one by one.
func (x tcx) remove(index int, d direction, unwanted func(ebpf.ProgramID) bool) error {
	for {
		found := false
		err := x.change(index, d, func(list []ebpf.ProgramID, revision uint64) error {
			at := slices.IndexFunc(list, unwanted)
			found = at >= 0
			if !found {
				return nil
			}
			return detachAt(index, d, list, at, revision)
		})
		if err != nil || !found {
			return err
		}
	}
}

// tcxAttempts is how often a change is tried while somebody else changes the list.
const tcxAttempts = 100

// change calls do with a device's list of programs and the list's revision. If the list
// changed meanwhile, the kernel refuses do's request with ESTALE, and change tries again.
func (x tcx) change(index int, d direction, do func(list []ebpf.ProgramID, revision uint64) error) error {
	err := error(unix.ESTALE)
	for i := 0; i < tcxAttempts && errors.Is(err, unix.ESTALE); i++ {
		list, revision, e := query(index, d)
		if e != nil {
			return e
		}
		err = do(list, revision)
	}
	return err
}

// Numbers of linux/bpf.h.
const (
	bpfProgDetach = 9
	bpfProgQuery  = 16
	bpfBefore     = 1 << 3 // BPF_F_BEFORE
	bpfAfter      = 1 << 4 // BPF_F_AFTER
	bpfID         = 1 << 5 // BPF_F_ID
)

// queryAttr is the part of union bpf_attr that BPF_PROG_QUERY uses.
type queryAttr struct {
	ifindex, attachType uint32
	_                   [2]uint32
	list                unsafe.Pointer
	_                   [8 - unsafe.Sizeof(uintptr(0))]byte
	count, _            uint32
	_                   [3]uint64
	revision            uint64
}

// query lists the attached programs, first to last. It does not use cilium/ebpf, which
// reports a kernel that refuses to answer (EPERM) as one that does not know the query.
func query(index int, d direction) (list []ebpf.ProgramID, revision uint64, err error) {
	list = make([]ebpf.ProgramID, 64) // BPF_MPROG_MAX
	attr := queryAttr{ifindex: uint32(index), attachType: uint32(d.tcx()), list: unsafe.Pointer(&list[0]), count: uint32(len(list))}
	_, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgQuery, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return nil, 0, fmt.Errorf("list programs: %w", errno)
	}
	return list[:attr.count], attr.revision, nil
}

// detachAttr is the part of union bpf_attr that BPF_PROG_DETACH reads.
type detachAttr struct {
	ifindex, programFD, attachType, flags uint32
	_, relative                           uint32
	revision                              uint64
}

// detachAt detaches the program at index at of the list. It names the program by its
// neighbour: we have no descriptor of another process's program, and getting one by id
// needs CAP_SYS_ADMIN. (cilium/ebpf cannot detach by a neighbour.)
func detachAt(index int, d direction, list []ebpf.ProgramID, at int, revision uint64) error {
	attr := detachAttr{ifindex: uint32(index), attachType: uint32(d.tcx()), flags: bpfBefore, revision: revision}
	if at > 0 {
		attr.flags, attr.relative = bpfAfter|bpfID, uint32(list[at-1])
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgDetach, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return fmt.Errorf("detach program %d: %w", list[at], errno)
	}
	return nil
}
