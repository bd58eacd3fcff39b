package arp

import (
	"encoding/binary"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"sipalive/platform"
)

// socket sends frames on any interface of the network namespace it was opened in. It is
// bound to no interface and looks the interface up by name each time (1 µs). So nothing
// has to be reopened when an interface goes down, or comes back with another index or MAC
// address. It receives nothing (protocol 0).
type socket struct {
	file *os.File
	raw  syscall.RawConn
}

func openSocket() (*socket, error) {
	// A blocking socket, so that the runtime's poller does not watch it: the poller would
	// be woken each time a frame has left.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "arp")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &socket{file: file, raw: raw}, nil
}

func (s *socket) close() error { return s.file.Close() }

// with runs f on the descriptor, which stays open meanwhile.
func (s *socket) with(f func(fd int) error) error {
	var err error
	if closed := s.raw.Control(func(fd uintptr) { err = f(int(fd)) }); closed != nil {
		return os.ErrClosed
	}
	return err
}

// look reads the interface's index and MAC address as they are now.
func look(fd int, ifname string) (index int, mac hardwareAddr, err error) {
	if index, err = platform.InterfaceIndex(fd, ifname); err != nil {
		return 0, mac, err
	}
	mac, err = platform.EthernetAddress(fd, ifname)
	return index, mac, err
}

// transmit hands one frame to the interface's queue. It never waits: a full queue is
// ENOBUFS or EAGAIN, an interface that is down is ENETDOWN. Without a carrier the kernel
// drops the frame and returns no error.
func transmit(fd, index int, f []byte) error {
	to := unix.SockaddrLinklayer{
		Protocol: networkOrder(binary.BigEndian.Uint16(f[12:])),
		Ifindex:  index,
		Halen:    uint8(len(broadcast)),
	}
	copy(to.Addr[:], f[:6])
	return unix.Sendto(fd, f, unix.MSG_DONTWAIT, &to)
}

func networkOrder(v uint16) uint16 { return v>>8 | v<<8 }
