package platform

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// tcpStamps reads another machine's clock from TCP timestamps (RFC 7323). Linux counts
// them in milliseconds of CLOCK_MONOTONIC, from a start that is the same for all
// connections between two ports. A SYN to an open port draws a timestamp in answer. Our
// kernel does not know that connection and resets it at once, so the program on that port
// never sees it. A firewall passes these packets if it passes others to the port.
type tcpStamps struct {
	conn    *net.IPConn // receives what comes from the other port
	port    int         // a bound socket, so that nobody else on this machine gets the port
	hungUp  sync.Once
	from    uint16
	of      netip.AddrPort
	seq     uint32
	begin   uint32 // the first timestamp
	started bool
}

var (
	errNoTCPStamp  = errors.New("it sends no TCP timestamps (net.ipv4.tcp_timestamps = 0 there?)")
	errOddTCPStamp = errors.New("its TCP timestamps are not in milliseconds (a route there with the feature tcp_usec_ts?)")
)

// oddRate, in ppm, is more than any clock is off by; it shows timestamps in another unit.
const oddRate = 100_000

// The parts of a segment that are read and written (RFC 9293 3.1).
const (
	tcpHeader    = 20
	tcpSum       = 16 // offset of the checksum
	tcpSYN       = 0x02
	tcpRST       = 0x04
	tcpACK       = 0x10
	tcpEnd       = 0 // kinds of options
	tcpNothing   = 1
	tcpTimestamp = 8
)

func openTCPStamps(from netip.Addr, of netip.AddrPort) (*tcpStamps, error) {
	s := &tcpStamps{of: of, seq: rand.Uint32()}
	var err error
	if s.port, s.from, err = holdPort(from); err != nil {
		return nil, err
	}
	s.conn, err = net.DialIP("ip6:tcp", &net.IPAddr{IP: from.AsSlice()}, &net.IPAddr{IP: of.Addr().AsSlice()})
	if err != nil {
		unix.Close(s.port)
		return nil, err
	}
	p := ipv6.NewPacketConn(s.conn)
	if err := errors.Join(p.SetBPF(betweenPorts(of.Port(), s.from)), p.SetChecksum(true, tcpSum)); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// holdPort binds a free port. It neither listens nor connects.
func holdPort(from netip.Addr) (fd int, port uint16, err error) {
	fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, 0, err
	}
	if err = unix.Bind(fd, &unix.SockaddrInet6{Addr: from.As16()}); err == nil {
		var name unix.Sockaddr
		if name, err = unix.Getsockname(fd); err == nil {
			return fd, uint16(name.(*unix.SockaddrInet6).Port), nil
		}
	}
	unix.Close(fd)
	return -1, 0, err
}

// betweenPorts returns a filter that passes only segments from one port to another. Other
// TCP segments from that machine would fill the socket's buffer.
func betweenPorts(from, to uint16) []bpf.RawInstruction {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(from)<<16 | uint32(to), SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic(err) // the instructions are constants
	}
	return raw
}

func (s *tcpStamps) silent() error { return fmt.Errorf("no answer on TCP port %d", s.of.Port()) }

func (s *tcpStamps) close() {
	s.hungUp.Do(func() {
		s.conn.Close()
		unix.Close(s.port)
	})
}

func (s *tcpStamps) ask() (sent, got, millis int64, err error) {
	s.seq++
	s.conn.SetReadDeadline(time.Now().Add(stampTimeout))
	question := s.syn()
	sent = BootNow()
	if _, err := s.conn.Write(question); err != nil {
		return 0, 0, 0, err
	}
	answer := make([]byte, 512)
	for {
		n, err := s.conn.Read(answer)
		if err != nil {
			return 0, 0, 0, err
		}
		got = BootNow()
		if flags, ours := s.read(answer[:n]); !ours {
			continue
		} else if flags&tcpRST != 0 {
			return 0, 0, 0, fmt.Errorf("nothing listens on its TCP port %d", s.of.Port())
		}
		stamp, has := stampOf(answer[:n])
		if !has {
			return 0, 0, 0, errNoTCPStamp
		}
		return sent, got, s.unwrap(stamp), nil
	}
}

// syn returns a segment that asks for a connection with timestamps. The kernel fills in
// its checksum.
func (s *tcpStamps) syn() []byte {
	b := make([]byte, tcpHeader, tcpHeader+12)
	binary.BigEndian.PutUint16(b, s.from)
	binary.BigEndian.PutUint16(b[2:], s.of.Port())
	binary.BigEndian.PutUint32(b[4:], s.seq)
	b[12], b[13] = (tcpHeader+12)/4<<4, tcpSYN
	binary.BigEndian.PutUint16(b[14:], 65535) // window
	b = append(b, tcpNothing, tcpNothing, tcpTimestamp, 10)
	b = binary.BigEndian.AppendUint32(b, s.seq)
	return append(b, 0, 0, 0, 0)
}

// read returns the flags of a segment, and whether it answers the newest question.
func (s *tcpStamps) read(b []byte) (flags byte, ours bool) {
	if len(b) < tcpHeader || binary.BigEndian.Uint32(b[8:]) != s.seq+1 {
		return 0, false
	}
	flags = b[13]
	return flags, flags&tcpACK != 0 && flags&(tcpSYN|tcpRST) != 0
}

// stampOf returns the sender's timestamp from a segment's options.
func stampOf(b []byte) (stamp uint32, has bool) {
	options := b[tcpHeader:]
	if n := int(b[12]>>4)*4 - tcpHeader; n >= 0 && n < len(options) {
		options = options[:n]
	}
	for len(options) > 0 && options[0] != tcpEnd {
		n := 1
		if options[0] != tcpNothing {
			if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
				return 0, false
			}
			n = int(options[1])
		}
		if options[0] == tcpTimestamp && n == 10 {
			return binary.BigEndian.Uint32(options[2:]), true
		}
		options = options[n:]
	}
	return 0, false
}

// unwrap extends timestamps past 32 bits, which wrap every 50 days.
func (s *tcpStamps) unwrap(stamp uint32) int64 {
	if !s.started {
		s.begin, s.started = stamp, true
	}
	return int64(int32(stamp - s.begin))
}
