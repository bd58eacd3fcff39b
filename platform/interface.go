package platform

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LocalAddresses returns the addresses of all interfaces, link-local ones without their
// zone.
func LocalAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list local addresses: %w", err)
	}
	return toAddrs(all), nil
}

// InterfaceOf returns the name of the interface that has addr.
func InterfaceOf(addr netip.Addr) (string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("find the interface of %s: %w", addr, err)
	}
	for _, ifi := range interfaces {
		// An interface that has just gone away has no addresses, so it is not the one.
		carried, _ := ifi.Addrs()
		for _, a := range toAddrs(carried) {
			if a == addr.Unmap().WithZone("") {
				return ifi.Name, nil
			}
		}
	}
	return "", fmt.Errorf("find the interface of %s: no interface carries it (see ip address)", addr)
}

func toAddrs(all []net.Addr) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(all))
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			addrs = append(addrs, p.Addr().Unmap())
		}
	}
	return addrs
}

// ifreq is struct ifreq of netdevice(7): a name and a union of 24 bytes.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data [24]byte
}

// ioctl asks about interface name in the network namespace of the socket fd, which may be
// any kind of socket. It costs about 1 µs; reading the interface by netlink costs 30 µs.
func (r *ifreq) ioctl(fd int, request uintptr, name string) error {
	if len(name) >= len(r.name) {
		return unix.ENODEV
	}
	copy(r.name[:], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(r)))
	runtime.KeepAlive(r)
	if errno != 0 {
		return errno
	}
	return nil
}

// InterfaceIndex returns the current index of name in the network namespace of the socket
// fd. An interface that is created again gets another index. The error is the bare errno,
// ENODEV if there is no such interface.
func InterfaceIndex(fd int, name string) (int, error) {
	var r ifreq
	if err := r.ioctl(fd, unix.SIOCGIFINDEX, name); err != nil {
		return 0, err
	}
	return int(*(*int32)(unsafe.Pointer(&r.data))), nil
}

// EthernetAddress returns the current MAC address of name in the network namespace of the
// socket fd. The error is the bare errno, EAFNOSUPPORT for an interface that is not
// Ethernet (the loopback, tunnels).
func EthernetAddress(fd int, name string) (mac [6]byte, err error) {
	var r ifreq
	if err := r.ioctl(fd, unix.SIOCGIFHWADDR, name); err != nil {
		return mac, err
	}
	// The union holds a struct sockaddr: hardware type, then the address.
	if *(*uint16)(unsafe.Pointer(&r.data)) != unix.ARPHRD_ETHER {
		return mac, unix.EAFNOSUPPORT
	}
	copy(mac[:], r.data[2:8])
	return mac, nil
}

// InterfaceRunning reports whether name is now set up and has a carrier (RFC 2863's
// operational state is up or unknown). The error is the bare errno, ENODEV if there is no
// such interface.
func InterfaceRunning(fd int, name string) (bool, error) {
	var r ifreq
	if err := r.ioctl(fd, unix.SIOCGIFFLAGS, name); err != nil {
		return false, err
	}
	const up = unix.IFF_UP | unix.IFF_RUNNING
	return *(*uint16)(unsafe.Pointer(&r.data))&up == up, nil
}

// InterfaceName returns the current name of the interface with index in the network
// namespace of the socket fd. The error is the bare errno, ENODEV if there is no such
// interface.
func InterfaceName(fd, index int) (string, error) {
	var r ifreq
	*(*int32)(unsafe.Pointer(&r.data)) = int32(index)
	if err := r.ioctl(fd, unix.SIOCGIFNAME, ""); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(r.name[:]), nil
}
