package fence

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// direction is the direction of the packets that a program sees.
type direction int

const (
	ingress direction = iota // to this host
	egress                   // from this host
)

func (d direction) String() string { return [...]string{"ingress", "egress"}[d] }

// layer is the header that a device's frames begin with.
type layer int

const (
	ethernet layer = iota
	network        // an IP header: tunnels, PPP
)

// namePrefix begins the names of all our programs.
const namePrefix = "sipalive_"

// Verdicts, the same for tcx and for a direct-action filter: the next program or filter
// sees the packet (TCX_NEXT, TC_ACT_UNSPEC), or the packet is dropped (TCX_DROP,
// TC_ACT_SHOT). We never return "accept": the programs of others would then not see the
// packet.
const (
	verdictNext = -1
	verdictDrop = 2
)

// Places of the program's data, in bytes from its frame pointer.
const (
	keyAt    = -16 // the VIP to look up
	headerAt = -56 // a piece of the packet, up to 40 bytes
)

// assembler writes one program. R6 holds the packet, R7 the offset of its network header;
// R8 and R9 are scratch.
type assembler struct {
	asm.Instructions
	deadlines int // map
	drops     int // map
	direction
	label string // label of the next instruction
}

// program builds the fence for one direction (§5.2). It reads a packet's addresses. If
// one is a VIP of the map, it compares the VIP's deadline with the boot clock. All other
// packets go on to the next program unchanged.
//
// It reads with bpf_skb_load_bytes, which works wherever the parts of a packet lie. It
// reads the protocol from the frame itself, because skb->protocol is only what a raw
// socket's owner says it is. Its helpers and instructions are those of Linux 5.8.
func program(d direction, l layer, deadlines, drops *ebpf.Map) *ebpf.ProgramSpec {
	a := &assembler{deadlines: deadlines.FD(), drops: drops.FD(), direction: d}
	a.emit(asm.Mov.Reg(asm.R6, asm.R1))
	if l == ethernet {
		a.ethernet()
		a.arp()
	} else {
		a.network()
	}
	a.ipv4()
	a.ipv6()
	a.end()
	return &ebpf.ProgramSpec{
		Name:         namePrefix + [...]string{"in", "out"}[d],
		Type:         ebpf.SchedCLS,
		License:      "MIT",
		Instructions: a.Instructions,
	}
}

func (a *assembler) emit(all ...asm.Instruction) {
	for _, i := range all {
		if a.label != "" {
			i, a.label = i.WithSymbol(a.label), ""
		}
		a.Instructions = append(a.Instructions, i)
	}
}

// at labels the next instruction.
func (a *assembler) at(label string) { a.label = label }

// load copies n bytes at offset from the network header to the stack. A packet that is
// too short goes on to the next program: the kernel itself refuses it.
func (a *assembler) load(offset int32, to int16, n int32) {
	a.emit(
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Add.Imm(asm.R2, offset),
		asm.Mov.Reg(asm.R3, asm.R10),
		asm.Add.Imm(asm.R3, int32(to)),
		asm.Mov.Imm(asm.R4, n),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "next"),
	)
}

// half is v in network byte order, as the program's load from memory sees it.
func half(v uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)))
}

const (
	ethernetHeader = 14
	vlanTag        = 4
	vlanTags       = 2 // an inner tag and an outer one; the kernel may keep another beside the packet
)

// ethernet finds the protocol behind the VLAN tags that are part of the frame.
func (a *assembler) ethernet() {
	a.emit(asm.Mov.Imm(asm.R7, ethernetHeader))
	a.etherType()
	for tag := range vlanTags {
		tagged := fmt.Sprint("tag", tag)
		a.emit(
			asm.JEq.Imm(asm.R8, half(unix.ETH_P_8021Q), tagged),
			asm.JNE.Imm(asm.R8, half(unix.ETH_P_8021AD), "type"),
		)
		a.at(tagged)
		a.emit(asm.Add.Imm(asm.R7, vlanTag))
		a.etherType()
	}
	a.at("type")
	a.emit(
		asm.JEq.Imm(asm.R8, half(unix.ETH_P_IP), "ipv4"),
		asm.JEq.Imm(asm.R8, half(unix.ETH_P_IPV6), "ipv6"),
		asm.JEq.Imm(asm.R8, half(unix.ETH_P_ARP), "arp"),
		asm.Ja.Label("next"),
	)
}

// etherType loads the half word before the network header into R8.
func (a *assembler) etherType() {
	a.load(-2, headerAt, 2)
	a.emit(asm.LoadMem(asm.R8, asm.R10, headerAt, asm.Half))
}

// network tells IPv4 from IPv6 by the first byte.
func (a *assembler) network() {
	a.emit(asm.Mov.Imm(asm.R7, 0))
	a.load(0, headerAt, 1)
	a.emit(
		asm.LoadMem(asm.R8, asm.R10, headerAt, asm.Byte),
		asm.RSh.Imm(asm.R8, 4),
		asm.JEq.Imm(asm.R8, 4, "ipv4"),
		asm.JEq.Imm(asm.R8, 6, "ipv6"),
		asm.Ja.Label("next"),
	)
}

// ipv4 drops a packet with the VIP as destination on its way in, or as source on its way
// out (RFC 791).
func (a *assembler) ipv4() {
	const source, destination = 12, 16
	offset := int32(destination)
	if a.direction == egress {
		offset = source
	}
	a.at("ipv4")
	a.load(offset, keyAt+12, 4)
	a.mapped()
	a.expired("next")
}

// ipv6 does the same (RFC 8200). It also drops neighbour discovery (RFC 4861) that
// concerns the VIP, whatever the packet's addresses: a solicitation for it on the way in,
// an advertisement of it on the way out.
func (a *assembler) ipv6() {
	const (
		nextHeader, source, destination, length = 6, 8, 24, 40
		icmpTarget                              = length + 8
		solicitation, advertisement             = 135, 136
	)
	address, kind := int16(destination), int32(solicitation)
	if a.direction == egress {
		address, kind = source, advertisement
	}
	a.at("ipv6")
	a.load(0, headerAt, length)
	for half := int16(0); half < 16; half += 8 {
		a.emit(
			asm.LoadMem(asm.R1, asm.R10, headerAt+address+half, asm.DWord),
			asm.StoreMem(asm.R10, keyAt+half, asm.R1, asm.DWord),
		)
	}
	a.expired("neighbour")
	a.at("neighbour")
	a.emit(
		asm.LoadMem(asm.R1, asm.R10, headerAt+nextHeader, asm.Byte),
		asm.JNE.Imm(asm.R1, unix.IPPROTO_ICMPV6, "next"),
	)
	a.load(length, headerAt, 1)
	a.emit(
		asm.LoadMem(asm.R1, asm.R10, headerAt, asm.Byte),
		asm.JNE.Imm(asm.R1, kind, "next"),
	)
	a.load(icmpTarget, keyAt, 16)
	a.expired("next")
}

// arp drops a request for the VIP on its way in, and any ARP with the VIP as sender on
// its way out (RFC 826). It lets in a request whose sender and target are both the VIP:
// that is another holder's announcement, asks nothing, and this host's own neighbour
// table needs it.
func (a *assembler) arp() {
	const (
		format, operation, sender, target, length = 2, 6, 14, 24, 28
		formatIPv4                                = 0x08000604 // IPv4, 6 and 4 bytes
		request                                   = 1
	)
	a.at("arp")
	a.load(0, headerAt, length)
	a.emit(
		asm.LoadMem(asm.R1, asm.R10, headerAt+format, asm.Half), // not aligned for a word
		asm.JNE.Imm(asm.R1, half(formatIPv4>>16), "next"),
		asm.LoadMem(asm.R1, asm.R10, headerAt+format+2, asm.Half),
		asm.JNE.Imm(asm.R1, half(formatIPv4&0xffff), "next"),
		asm.LoadMem(asm.R8, asm.R10, headerAt+sender, asm.Half),
		asm.LoadMem(asm.R9, asm.R10, headerAt+sender+2, asm.Half),
	)
	if a.direction == egress {
		a.emit(
			asm.StoreMem(asm.R10, keyAt+12, asm.R8, asm.Half),
			asm.StoreMem(asm.R10, keyAt+14, asm.R9, asm.Half),
		)
	} else {
		a.emit(
			asm.LoadMem(asm.R1, asm.R10, headerAt+operation, asm.Half),
			asm.JNE.Imm(asm.R1, half(request), "next"),
			asm.LoadMem(asm.R1, asm.R10, headerAt+target, asm.Half),
			asm.LoadMem(asm.R2, asm.R10, headerAt+target+2, asm.Half),
			asm.StoreMem(asm.R10, keyAt+12, asm.R1, asm.Half),
			asm.StoreMem(asm.R10, keyAt+14, asm.R2, asm.Half),
			asm.JNE.Reg(asm.R1, asm.R8, "asks"),
			asm.JEq.Reg(asm.R2, asm.R9, "next"),
		)
		a.at("asks")
	}
	a.mapped()
	a.expired("next")
}

// mapped completes the IPv4 address in the key's last four bytes to ::ffff:a.b.c.d.
func (a *assembler) mapped() {
	a.emit(
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R10, keyAt, asm.R1, asm.DWord),
		asm.StoreMem(asm.R10, keyAt+8, asm.R1, asm.Half),
		asm.Mov.Imm(asm.R1, half(0xffff)),
		asm.StoreMem(asm.R10, keyAt+10, asm.R1, asm.Half),
	)
}

// expired jumps to drop if the key is a VIP at or past its deadline, otherwise to label.
func (a *assembler) expired(label string) {
	a.emit(
		asm.LoadMapPtr(asm.R1, a.deadlines),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, keyAt),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, label),
		asm.LoadMem(asm.R9, asm.R0, 0, asm.DWord),
		asm.FnKtimeGetBootNs.Call(),
		asm.JLE.Reg(asm.R9, asm.R0, "drop"),
		asm.Ja.Label(label),
	)
}

func (a *assembler) end() {
	a.at("drop")
	a.emit(
		asm.LoadMapValue(asm.R1, a.drops, uint32(a.direction)*8),
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
		asm.Mov.Imm(asm.R0, verdictDrop),
		asm.Return(),
	)
	a.at("next")
	a.emit(asm.Mov.Imm(asm.R0, verdictNext), asm.Return())
}
