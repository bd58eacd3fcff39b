package lab

import "encoding/binary"

// NetworkOrder is an EtherType as a packet socket takes it (packet(7)).
func NetworkOrder(etherType uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, etherType))
}
