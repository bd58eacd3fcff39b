package platform

import (
	"errors"
	"os"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// netlinkReceiver is what the watch needs from a netlink socket. Close may be called at
// any time, more than once, and ends a waiting Receive.
type netlinkReceiver interface {
	Send(*nl.NetlinkRequest) error
	// Receive waits for messages from the kernel. They are valid until the next call.
	Receive() ([]syscall.NetlinkMessage, error)
	// Drain throws away everything that waits to be received.
	Drain() error
	Close() error
}

// monitorSocket is a subscription to netlink groups. The netlink library's own cannot be
// emptied without waiting, which is needed after an overrun.
type monitorSocket struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte
}

// openMonitor subscribes to groups (RTNLGRP_...) of protocol, and asks for a kernel
// buffer of size bytes.
func openMonitor(protocol, size int, groups ...uint) (*monitorSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, err
	}
	address := &unix.SockaddrNetlink{}
	for _, g := range groups {
		address.Groups |= 1 << (g - 1)
	}
	if err := unix.Bind(fd, address); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// Only CAP_NET_ADMIN allows more than net.core.rmem_max. Less is no error, because an
	// overrun is noticed.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
	}
	file := os.NewFile(uintptr(fd), "netlink")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &monitorSocket{file: file, raw: raw, buf: make([]byte, 1<<16)}, nil
}

func (s *monitorSocket) Send(request *nl.NetlinkRequest) error {
	_, err := s.file.Write(request.Serialize())
	return err
}

func (s *monitorSocket) Receive() ([]syscall.NetlinkMessage, error) {
	for {
		n, from, err := s.receive(true)
		if err != nil {
			return nil, err
		}
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == nl.PidKernel {
			return syscall.ParseNetlinkMessage(s.buf[:n])
		}
	}
}

func (s *monitorSocket) Drain() error {
	for {
		_, _, err := s.receive(false)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return err
		}
	}
}

// receive reads one datagram. Without wait it returns EAGAIN if there is none.
func (s *monitorSocket) receive(wait bool) (n int, from unix.Sockaddr, err error) {
	waitErr := s.raw.Read(func(fd uintptr) bool {
		n, from, err = unix.Recvfrom(int(fd), s.buf, 0)
		return !wait || !errors.Is(err, unix.EAGAIN)
	})
	if waitErr != nil {
		return 0, nil, waitErr
	}
	return n, from, err
}

// netlinkError returns the error in an NLMSG_ERROR; nil if it is an acknowledgement.
func netlinkError(m syscall.NetlinkMessage) error {
	if len(m.Data) < 4 {
		return unix.EPROTO
	}
	if errno := int32(nl.NativeEndian().Uint32(m.Data)); errno != 0 {
		return syscall.Errno(-errno)
	}
	return nil
}

func (s *monitorSocket) Close() error { return s.file.Close() }
