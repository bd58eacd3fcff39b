package bench

import (
	encoding "encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sipalive/test/lab"
)

// sighting is one frame or notice. Frames have the kernel's time, notices the time of the
// reader (a thread that runs ahead of the agents').
type sighting struct {
	at   time.Duration // by lab.Now
	what kind
}

// watcher sees a node's frames and addresses from inside its namespace.
type watcher struct {
	s         *site
	vip, peer netip.Addr
	ended     atomic.Bool
	readers   []chan []sighting
}

// watch starts watching node i, pbx1 or pbx3. Its peer in the move is the other one.
func watch(s *site, i int) *watcher {
	s.b.Helper()
	w := &watcher{s: s, vip: s.VIPs[0], peer: s.Node(2 - i).Addr}
	frames, notices := -1, -1
	s.must(s.Node(i).Do(func() (err error) {
		if frames, err = packetSocket(); err != nil {
			return err
		}
		notices, err = addressSocket()
		return err
	}))
	w.read(frames, w.frame)
	w.read(notices, w.notice)
	return w
}

// packetSocket hears every frame of the node, both ways, with the kernel's time.
func packetSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(lab.NetworkOrder(unix.ETH_P_ALL)))
	if err != nil {
		return -1, err
	}
	return fd, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
}

func addressSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR})
}

// read collects, until the end, what `of` returns for each message.
func (w *watcher) read(fd int, of func(m, control []byte, from unix.Sockaddr) sighting) {
	w.s.b.Helper()
	w.s.must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}))
	seen := make(chan []sighting, 1)
	w.readers = append(w.readers, seen)
	go func() {
		defer unix.Close(fd)
		runtime.LockOSThread()                                                                                          // never unlocked: the thread ends with this goroutine
		_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 98}, 0) // without this the times are merely later
		var all []sighting
		m, control := make([]byte, 4096), make([]byte, 128)
		for !w.ended.Load() {
			n, c, _, from, err := unix.Recvmsg(fd, m, control, 0)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				break
			}
			if x := of(m[:n], control[:c], from); x.what != 0 {
				all = append(all, x)
			}
		}
		seen <- all
	}()
}

func (w *watcher) frame(m, control []byte, from unix.Sockaddr) sighting {
	ll, is := from.(*unix.SockaddrLinklayer)
	if !is {
		return sighting{}
	}
	what := classify(m, ll.Pkttype == unix.PACKET_OUTGOING, w.vip, w.peer)
	return sighting{stamped(control), what}
}

// stamped returns a frame's time. The kernel gives it by the wall clock.
func stamped(control []byte) time.Duration {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for _, c := range messages {
		if c.Header.Type == unix.SO_TIMESTAMPNS && len(c.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			sec, ns := encoding.NativeEndian.Uint64(c.Data), encoding.NativeEndian.Uint64(c.Data[8:])
			wall := time.Unix(int64(sec), int64(ns))
			return lab.Now() - time.Since(wall.Round(0))
		}
	}
	return 0
}

func (w *watcher) notice(m, _ []byte, _ unix.Sockaddr) sighting {
	messages, err := syscall.ParseNetlinkMessage(m)
	if err != nil || len(messages) == 0 {
		return sighting{}
	}
	attributes, err := syscall.ParseNetlinkRouteAttr(&messages[0])
	if err != nil || !slices.ContainsFunc(attributes, func(a syscall.NetlinkRouteAttr) bool {
		return a.Attr.Type == unix.IFA_LOCAL && slices.Equal(a.Value, w.vip.AsSlice())
	}) {
		return sighting{}
	}
	switch messages[0].Header.Type {
	case unix.RTM_NEWADDR:
		return sighting{lab.Now(), addressCame}
	case unix.RTM_DELADDR:
		return sighting{lab.Now(), addressGone}
	}
	return sighting{}
}

// end returns all that was seen, in order.
func (w *watcher) end() (all []sighting) {
	w.ended.Store(true)
	for _, r := range w.readers {
		all = append(all, <-r...)
	}
	slices.SortStableFunc(all, func(x, y sighting) int { return int(x.at - y.at) })
	return all
}
