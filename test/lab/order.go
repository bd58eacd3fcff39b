package lab

import "encoding/binary"

// NetworkOrder returns an EtherType in the byte order that a packet socket takes
// (packet(7)).
func NetworkOrder(etherType uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, etherType))
}
