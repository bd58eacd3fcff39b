package lab

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SIPObserver sends OPTIONS to one address at a fixed pace, from one connected UDP
// socket. For every question it records when it was sent and which server answered. Only
// answers from the very address and port asked count, as for a phone behind NAT.
//
// At one question per millisecond it costs 3 to 5 % of a core, including the kernel's
// work of carrying the questions (TestSIPObserverMeasuresAnOutage prints the figure). Its
// thread runs at real-time priority but shares the Go scheduler with its process. So
// leave that process little else to do, and run servers and agents as separate processes.
// SIPReport.Stall says how well that worked.
type SIPObserver struct {
	pacer
	Target netip.AddrPort

	message []byte
	numbers []int // offsets of the question's number in message
	buffer  []byte

	mu         sync.Mutex
	chunks     [][]ping // pingChunk entries each: growing copies nothing
	count      int      // questions asked
	answered   int
	servers    []string // Server headers of the answers
	duplicates int      // answers to a question already answered
	foreign    int      // datagrams that answer no question of ours
}

// ping is one question in 16 bytes: an hour at 1 ms takes 58 MB.
type ping struct {
	sent   int64  // ns, by Now
	rtt    uint32 // ns; 0: no answer
	status uint16
	server uint8 // index into servers
}

const (
	pingChunk = 1 << 13
	// numberBase keeps every number at ten digits and below 2^31, as CSeq must be (RFC
	// 3261 8.1.1.5).
	numberBase    = 1_000_000_000
	receiveBuffer = 1 << 20 // bytes of datagrams, each counted with about 2 kB of overhead
	// lateAnswer is how long Stop still waits for answers.
	lateAnswer = 300 * time.Millisecond
)

// Ping is one question and its answer.
type Ping struct {
	Sent   time.Duration // when it was sent, by Now
	RTT    time.Duration // 0: lost, or no answer yet
	Server string        // the answer's Server header
	Status int           // the answer's status code
}

// ObserveSIP starts asking target from this host, normally the phone, once per interval;
// 0 means every millisecond.
func (h *Host) ObserveSIP(target netip.AddrPort, interval time.Duration) (*SIPObserver, error) {
	if interval == 0 {
		interval = time.Millisecond
	}
	o := &SIPObserver{Target: target, buffer: make([]byte, 65536), servers: []string{""}}
	o.pacer = pacer{interval: interval, linger: lateAnswer, ask: o.send, hear: o.receive, settled: o.settled}
	var local netip.AddrPort
	err := h.Do(func() (err error) {
		o.fd, local, err = connectedUDP(target)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("observe sip:%v from %s: %w", target, h.Name, err)
	}
	o.compose(local)
	if err := h.lab.register(o); err != nil {
		unix.Close(o.fd)
		return nil, err
	}
	o.start()
	return o, nil
}

func connectedUDP(target netip.AddrPort) (int, netip.AddrPort, error) {
	family, to := unix.AF_INET, unix.Sockaddr(nil)
	if target.Addr().Is6() {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(target.Port()), Addr: target.Addr().As16()}
	} else {
		to = &unix.SockaddrInet4{Port: int(target.Port()), Addr: target.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, netip.AddrPort{}, err
	}
	err = unix.Connect(fd, to)
	if err == nil {
		// Room for the answers of half a second. The default holds 90 ms of answers,
		// which suffices on an idle machine.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
		var name unix.Sockaddr
		if name, err = unix.Getsockname(fd); err == nil {
			if local, is := name.(*unix.SockaddrInet6); is {
				return fd, netip.AddrPortFrom(netip.AddrFrom16(local.Addr), uint16(local.Port)), nil
			}
			local := name.(*unix.SockaddrInet4)
			return fd, netip.AddrPortFrom(netip.AddrFrom4(local.Addr), uint16(local.Port)), nil
		}
	}
	unix.Close(fd)
	return -1, netip.AddrPort{}, err
}

// compose writes the message once. Each question then only overwrites its number.
func (o *SIPObserver) compose(local netip.AddrPort) {
	run := make([]byte, 6)
	_, _ = rand.Read(run) // never fails since Go 1.24
	id, number := hex.EncodeToString(run), strconv.Itoa(numberBase)
	o.message = fmt.Appendf(nil, "OPTIONS sip:%[1]v SIP/2.0\r\n"+
		"Via: SIP/2.0/UDP %[2]v;branch=z9hG4bK%[3]s.%[4]s;rport\r\n"+
		"Max-Forwards: 70\r\n"+
		"From: <sip:phone@%[5]v>;tag=%[4]s\r\n"+
		"To: <sip:%[1]v>\r\n"+
		"Call-ID: %[3]s.%[4]s@%[5]v\r\n"+
		"CSeq: %[4]s OPTIONS\r\n"+
		"Contact: <sip:phone@%[2]v>\r\n"+
		"Accept: application/sdp\r\n"+
		"User-Agent: phone\r\n"+
		"Content-Length: 0\r\n\r\n", o.Target, local, id, number, local.Addr())
	for at := 0; ; {
		i := bytes.Index(o.message[at:], []byte(number))
		if i < 0 {
			return
		}
		o.numbers = append(o.numbers, at+i)
		at += i + len(number)
	}
}

func (o *SIPObserver) send(now time.Duration) {
	o.mu.Lock()
	n := o.count
	if n%pingChunk == 0 {
		o.chunks = append(o.chunks, make([]ping, pingChunk))
	}
	o.chunks[n/pingChunk][n%pingChunk].sent = int64(now)
	o.count++
	o.mu.Unlock()

	for _, at := range o.numbers {
		for i, v := at+9, numberBase+n; i >= at; i, v = i-1, v/10 {
			o.message[i] = byte('0' + v%10)
		}
	}
	// An error is most often the ICMP answer to an earlier question; write returns it
	// instead of sending. So send again. A question that fails twice counts as lost,
	// since no answer will come.
	for range 2 {
		if _, err := unix.Write(o.fd, o.message); err == nil {
			return
		}
	}
}

func (o *SIPObserver) receive() {
	for {
		n, err := unix.Read(o.fd, o.buffer)
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			continue // EINTR, or an ICMP error; reading clears it
		}
		o.record(Now(), o.buffer[:n])
	}
}

func (o *SIPObserver) record(now time.Duration, answer []byte) {
	number, status, server := parseAnswer(answer)
	o.mu.Lock()
	defer o.mu.Unlock()
	n := number - numberBase
	if status < 100 || n < 0 || n >= o.count {
		o.foreign++
		return
	}
	p := &o.chunks[n/pingChunk][n%pingChunk]
	if p.rtt != 0 {
		o.duplicates++
		return
	}
	p.rtt = uint32(min(max(int64(now)-p.sent, 1), math.MaxUint32))
	p.status, p.server = uint16(status), o.serverIndex(server)
	o.answered++
}

// serverIndex returns the index of a server's name and adds it if it is new. After 255
// names every new one counts as "".
func (o *SIPObserver) serverIndex(name []byte) uint8 {
	for i, s := range o.servers {
		if s == string(name) {
			return uint8(i)
		}
	}
	if len(o.servers) > math.MaxUint8 {
		return 0
	}
	o.servers = append(o.servers, string(name))
	return uint8(len(o.servers) - 1)
}

func (o *SIPObserver) settled() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.answered == o.count
}

// parseAnswer returns the CSeq number, the status code and the Server header of a
// response. Status 0 means that the message is no response.
func parseAnswer(b []byte) (number, status int, server []byte) {
	rest, ok := bytes.CutPrefix(b, []byte("SIP/2.0 "))
	if !ok || len(rest) < 3 {
		return 0, 0, nil
	}
	number = digits(headerValue(b, "cseq"))
	return number, digits(rest[:3]), headerValue(b, "server")
}

// headerValue returns the value of a header, given its lower-case name. It looks only at
// the head of the message.
func headerValue(b []byte, name string) []byte {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return nil
		}
		b = b[i+1:]
		if len(b) == 0 || b[0] == '\r' || b[0] == '\n' {
			return nil
		}
		if len(b) <= len(name) || b[0]|0x20 != name[0] || !bytes.EqualFold(b[:len(name)], []byte(name)) {
			continue
		}
		value, ok := bytes.CutPrefix(bytes.TrimLeft(b[len(name):], " \t"), []byte(":"))
		if !ok {
			continue
		}
		if end := bytes.IndexByte(value, '\n'); end >= 0 {
			value = value[:end]
		}
		return bytes.TrimSpace(value)
	}
}

// digits reads the number at the start of b, at most ten digits; 0 if there is none.
func digits(b []byte) int {
	n := 0
	for i := 0; i < len(b) && i < 10 && b[i] >= '0' && b[i] <= '9'; i++ {
		n = n*10 + int(b[i]-'0')
	}
	return n
}
