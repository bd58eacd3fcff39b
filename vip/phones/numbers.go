package phones

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// A record of the program's packet: the connection as the kernel looks it up (struct
// bpf_sock_tuple, the phone first, as in a packet from it), then the numbers that the
// program writes.
const (
	recordLen = 48
	foundAt   = 36
	seqAt     = 40
	ackAt     = 44

	headerLen = 14 // Ethernet header: the kernel runs no program on a shorter packet
	perRun    = 32
)

// Offsets of a socket's fields for a program (linux/bpf.h: struct bpf_sock and struct
// bpf_tcp_sock).
const (
	sockState = 72
	tcpRcvNxt = 16
	tcpSndUna = 24

	stateEstablished = 1 // TCP_ESTABLISHED
)

// tupleLen is the length by which the kernel tells IPv4 from IPv6.
var tupleLen = [2]int32{12, 36}

// Numbers reads sequence numbers from the kernel, whose socket diagnosis does not tell
// them. Its programs are attached to no device and see no traffic: each run looks sockets
// up (bpf_sk_lookup_tcp) and reads two fields of each. It is not safe for use by several
// goroutines.
type Numbers struct {
	programs [2]*ebpf.Program // IPv4, IPv6
	in, out  []byte
}

// OpenNumbers loads the programs. It needs CAP_NET_ADMIN and CAP_BPF. The sockets are
// those of the network namespace in which Fill is called.
func OpenNumbers() (*Numbers, error) {
	n := &Numbers{in: make([]byte, headerLen+perRun*recordLen), out: make([]byte, headerLen+perRun*recordLen)}
	// An EtherType of no protocol (IEEE 802, local experiments): the kernel looks no
	// further.
	binary.BigEndian.PutUint16(n.in[12:], 0x88b5)
	for family := range n.programs {
		p, err := ebpf.NewProgramWithOptions(lookup(tupleLen[family]), ebpf.ProgramOptions{LogDisabled: true})
		if err != nil {
			n.Close()
			return nil, fmt.Errorf("sequence numbers: %w (needs CAP_NET_ADMIN and CAP_BPF)", err)
		}
		n.programs[family] = p
	}
	return n, nil
}

// Close closes the programs.
func (n *Numbers) Close() {
	for _, p := range n.programs {
		if p != nil {
			_ = p.Close()
		}
	}
}

// Fill sets the numbers of connections on vip. It leaves those of connections that are no
// longer established as they are. It does not find a socket that is bound to a device or
// in a VRF.
func (n *Numbers) Fill(vip netip.Addr, connections []Connection) error {
	family := 0
	if vip.Is6() {
		family = 1
	}
	for len(connections) > 0 {
		part := connections[:min(perRun, len(connections))]
		connections = connections[len(part):]
		if err := n.run(family, vip, part); err != nil {
			return fmt.Errorf("read sequence numbers of connections on %s: %w", vip, err)
		}
	}
	return nil
}

func (n *Numbers) run(family int, vip netip.Addr, part []Connection) error {
	in := n.in[:headerLen+len(part)*recordLen]
	for i, c := range part {
		r := in[headerLen+i*recordLen:][:0]
		r = append(append(r, c.Phone.Addr().AsSlice()...), vip.AsSlice()...)
		r = binary.BigEndian.AppendUint16(r, c.Phone.Port())
		r = binary.BigEndian.AppendUint16(r, c.Port)
		clear(r[len(r):recordLen])
	}
	run := ebpf.RunOptions{Data: in, DataOut: n.out}
	if _, err := n.programs[family].Run(&run); err != nil {
		return err
	}
	if len(run.DataOut) < len(in) {
		return errors.New("the kernel gave less back than it got")
	}
	for i := range part {
		r := run.DataOut[headerLen+i*recordLen:]
		if binary.NativeEndian.Uint32(r[foundAt:]) != 0 {
			part[i].Seq = binary.NativeEndian.Uint32(r[seqAt:])
			part[i].Ack = binary.NativeEndian.Uint32(r[ackAt:])
		}
	}
	return nil
}

// lookup is the program for one family: the same few steps for each record, up to the end
// of the packet. It uses helpers of Linux 5.1.
func lookup(tuple int32) *ebpf.ProgramSpec {
	const ctxData, ctxDataEnd = 76, 80 // struct __sk_buff
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, ctxData, asm.Word),
		asm.LoadMem(asm.R8, asm.R6, ctxDataEnd, asm.Word),
	}
	for i := range perRun {
		code = append(code, lookupOne(i, tuple)...)
	}
	code = append(code, asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), asm.Return())
	return &ebpf.ProgramSpec{Name: "sipalive_seq", Type: ebpf.SchedCLS, License: "MIT", Instructions: code}
}

func lookupOne(i int, tuple int32) asm.Instructions {
	at := headerLen + i*recordLen
	release, next := fmt.Sprint("release", i), fmt.Sprint("next", i)
	put := func(offset int, r asm.Register) asm.Instruction {
		return asm.StoreMem(asm.R7, int16(at+offset), r, asm.Word)
	}
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.Add.Imm(asm.R1, int32(at+recordLen)),
		asm.JGT.Reg(asm.R1, asm.R8, "end"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Add.Imm(asm.R2, int32(at)),
		asm.Mov.Imm(asm.R3, tuple),
		asm.Mov.Imm(asm.R4, -1), // BPF_F_CURRENT_NETNS
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkLookupTcp.Call(),
		asm.JEq.Imm(asm.R0, 0, next),
		asm.Mov.Reg(asm.R9, asm.R0),
		asm.LoadMem(asm.R1, asm.R0, sockState, asm.Word), // a listener is found, too
		asm.JNE.Imm(asm.R1, stateEstablished, release),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.FnTcpSock.Call(),
		asm.JEq.Imm(asm.R0, 0, release),
		asm.LoadMem(asm.R1, asm.R0, tcpSndUna, asm.Word),
		asm.LoadMem(asm.R2, asm.R0, tcpRcvNxt, asm.Word),
		put(seqAt, asm.R1),
		put(ackAt, asm.R2),
		asm.Mov.Imm(asm.R1, 1),
		put(foundAt, asm.R1),
		asm.Mov.Reg(asm.R1, asm.R9).WithSymbol(release),
		asm.FnSkRelease.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol(next), // a target to jump to
	}
}
