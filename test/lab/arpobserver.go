package lab

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ARPObserver asks for each VIP by ARP, from the router's port, and records which MACs
// answered and when. Two MACs that answer one question are two holders.
//
// It sends from a MAC and an address that no host has, not from the router's, through a
// raw socket on the router's eth0. The router's neighbour table learns nothing from the
// answers, so a takeover must still be announced to the router while it is observed.
//
// The last byte of the asking MAC changes with every question, and a holder answers to
// the MAC that asked. So every answer names its question.
type ARPObserver struct {
	pacer
	lab    *Lab
	vips   []netip.Addr
	frame  []byte
	buffer []byte

	mu         sync.Mutex
	asked      int          // rounds; each asks for every VIP once
	recent     [][]question // by VIP, then by round modulo arpSlots
	tenures    [][]Tenure   // by VIP
	violations []*Violation // in the order found
}

// question is one ARP request that may still be answered.
type question struct {
	at        time.Duration
	answers   []ARPAnswer // one per MAC
	violation *Violation
}

// ARPAnswer is one host's answer to one question.
type ARPAnswer struct {
	At   time.Duration
	MAC  net.HardwareAddr
	Host string // name of the host with this MAC; the MAC itself if no host has it
}

// Violation is a question that two hosts answered. Two holders for longer than two
// intervals cause several violations.
//
// In rare cases a planned move causes one without a second holder: the machine is so busy
// that the copies of one broadcast reach two hosts further apart in time than the move
// takes. The AddressObserver then shows no overlap.
type Violation struct {
	VIP     netip.Addr
	Asked   time.Duration
	Answers []ARPAnswer
}

func (v Violation) String() string {
	s := fmt.Sprintf("%v asked for at %v was answered by", v.VIP, v.Asked)
	for _, a := range v.Answers {
		s += fmt.Sprintf(" %s (%v after %v)", a.Host, a.MAC, a.At-v.Asked)
	}
	return s
}

// Tenure is a period in which all answers for a VIP came from one MAC.
type Tenure struct {
	Host     string
	MAC      net.HardwareAddr
	From, To time.Duration // the first and the last answer
	Answers  int
	Silences []Silence // inside the tenure: another host may have held then, where no question reached it
}

// Silence is a period longer than silentAfter without an answer.
type Silence struct{ From, To time.Duration }

// silentAfter is ten questions at the usual interval.
const silentAfter = 100 * time.Millisecond

// Unbroken returns the parts of a tenure between its silences. Their Answers are not
// counted.
func (t Tenure) Unbroken() []Tenure {
	var list []Tenure
	part := t
	part.Silences, part.Answers = nil, 0
	for _, s := range t.Silences {
		part.To = s.From
		list = append(list, part)
		part.From = s.To
	}
	part.To = t.To
	return append(list, part)
}

// arpSlots is how many questions can be told apart. At 10 ms the number repeats after
// 1.28 s.
const arpSlots = 128

// arpMAC is the MAC that asks. Its last byte is the question's number.
var arpMAC = net.HardwareAddr{0x02, 0x6f, 0x62, 0x73, 0, 0}

// ObserveARP starts asking for each VIP once per interval; 0 means every 10 ms.
func (l *Lab) ObserveARP(interval time.Duration, vips ...netip.Addr) (*ARPObserver, error) {
	if interval == 0 {
		interval = 10 * time.Millisecond
	}
	o := &ARPObserver{lab: l, vips: vips, buffer: make([]byte, 2048)}
	for _, vip := range vips {
		if !vip.Is4() {
			return nil, fmt.Errorf("observe ARP for %v: want an IPv4 address", vip)
		}
		o.recent = append(o.recent, make([]question, arpSlots))
	}
	o.tenures = make([][]Tenure, len(vips))
	o.pacer = pacer{interval: interval, linger: 100 * time.Millisecond, ask: o.send, hear: o.receive, settled: func() bool { return false }}
	o.frame = arpQuestion(l.address(250))
	if err := l.router.Do(o.open); err != nil {
		return nil, fmt.Errorf("observe ARP from %s: %w", l.router.Name, err)
	}
	if err := l.register(o); err != nil {
		unix.Close(o.fd)
		return nil, err
	}
	o.start()
	return o, nil
}

// open makes the raw socket. The answers go to MACs that are not the interface's own.
// They arrive all the same: a veth filters nothing, and a packet socket sees every frame.
// The kernel's own ARP ignores frames to foreign MACs.
func (o *ARPObserver) open() error {
	dev, err := net.InterfaceByName(nic)
	if err != nil {
		return err
	}
	protocol := NetworkOrder(unix.ETH_P_ARP)
	o.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return err
	}
	err = unix.Bind(o.fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: dev.Index})
	if err != nil {
		unix.Close(o.fd)
	}
	return err
}

// Offsets in an Ethernet frame that carries ARP for IPv4 (RFC 826).
const (
	arpOperation = 20
	arpSenderMAC = 22
	arpSenderIP  = 28
	arpTargetMAC = 32
	arpTargetIP  = 38
	arpLength    = 42
)

func arpQuestion(sender netip.Addr) []byte {
	f := make([]byte, arpLength)
	for i := range 6 {
		f[i] = 0xff
	}
	copy(f[6:], arpMAC)
	copy(f[12:], []byte{0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1}) // ARP; Ethernet, IPv4, request
	copy(f[arpSenderMAC:], arpMAC)
	copy(f[arpSenderIP:], sender.AsSlice())
	return f
}

func (o *ARPObserver) send(now time.Duration) {
	o.mu.Lock()
	slot := o.asked % arpSlots
	o.asked++
	for i := range o.recent {
		o.recent[i][slot] = question{at: now}
	}
	o.mu.Unlock()
	o.frame[11], o.frame[arpSenderMAC+5] = byte(slot), byte(slot)
	for _, vip := range o.vips {
		ip := vip.As4()
		copy(o.frame[arpTargetIP:], ip[:])
		_, _ = unix.Write(o.fd, o.frame) // ENETDOWN while the cable is pulled: no answer will come
	}
}

func (o *ARPObserver) receive() {
	for {
		n, err := unix.Read(o.fd, o.buffer)
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			return // ENETDOWN: the next round reads again
		}
		o.record(Now(), o.buffer[:n])
	}
}

func (o *ARPObserver) record(now time.Duration, f []byte) {
	if len(f) < arpLength || f[arpOperation+1] != 2 || !slices.Equal(f[arpTargetMAC:arpTargetMAC+5], arpMAC[:5]) {
		return
	}
	slot := int(f[arpTargetMAC+5])
	ip, _ := netip.AddrFromSlice(f[arpSenderIP : arpSenderIP+4])
	vip := slices.Index(o.vips, ip)
	if vip < 0 || slot >= arpSlots {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	q := &o.recent[vip][slot]
	mac := net.HardwareAddr(f[arpSenderMAC : arpSenderMAC+6])
	for _, a := range q.answers {
		if slices.Equal(a.MAC, mac) {
			return
		}
	}
	mac = slices.Clone(mac)
	answer := ARPAnswer{At: now, MAC: mac, Host: o.lab.hostByMAC(mac)}
	q.answers = append(q.answers, answer)
	o.tenure(vip, answer)
	switch {
	case len(q.answers) == 2:
		q.violation = &Violation{VIP: ip, Asked: q.at, Answers: slices.Clone(q.answers)}
		o.violations = append(o.violations, q.violation)
	case len(q.answers) > 2:
		q.violation.Answers = append(q.violation.Answers, answer)
	}
}

func (o *ARPObserver) tenure(vip int, a ARPAnswer) {
	list := o.tenures[vip]
	if n := len(list); n > 0 && slices.Equal(list[n-1].MAC, a.MAC) {
		t := &list[n-1]
		if a.At-t.To > silentAfter {
			t.Silences = append(t.Silences, Silence{t.To, a.At})
		}
		t.To = a.At
		t.Answers++
		return
	}
	o.tenures[vip] = append(list, Tenure{Host: a.Host, MAC: a.MAC, From: a.At, To: a.At, Answers: 1})
}

// Violations returns every question that two or more MACs answered.
func (o *ARPObserver) Violations() []Violation {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []Violation
	for _, v := range o.violations {
		list = append(list, Violation{v.VIP, v.Asked, slices.Clone(v.Answers)})
	}
	return list
}

// Tenures returns the tenures of a VIP in order of time.
func (o *ARPObserver) Tenures(vip netip.Addr) []Tenure {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i := slices.Index(o.vips, vip); i >= 0 {
		return slices.Clone(o.tenures[i])
	}
	return nil
}

// Last returns the host that answered last for a VIP, and when; "" if none ever did.
func (o *ARPObserver) Last(vip netip.Addr) (host string, at time.Duration) {
	list := o.Tenures(vip)
	if len(list) == 0 {
		return "", 0
	}
	return list[len(list)-1].Host, list[len(list)-1].To
}

// Asked returns how many rounds of questions were sent.
func (o *ARPObserver) Asked() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked
}
