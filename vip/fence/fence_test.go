package fence

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sipalive/platform"
	"sipalive/platform/nstest"
)

// A site is this node, in which the test runs, and another machine next to it.
type site struct {
	t      testing.TB
	ns     *nstest.Namespace
	far    *nstest.Namespace
	record string
	clsact bool
}

const (
	vipText  = "192.0.2.101"
	vip2Text = "192.0.2.102"
)

var (
	vip2   = netip.MustParseAddr(vip2Text)
	router = netip.MustParseAddr("192.0.2.1")
)

// hooked runs a test with each hook.
func hooked(t *testing.T, test func(*testing.T, *site)) {
	for _, clsact := range []bool{false, true} {
		t.Run(map[bool]string{false: "tcx", true: "clsact"}[clsact], func(t *testing.T) {
			s := newSite(t)
			s.clsact = clsact
			test(t, s)
		})
	}
}

func newSite(t testing.TB) *site {
	s := &site{t: t, record: filepath.Join(t.TempDir(), "fence")}
	s.ns = nstest.Enter(t)
	s.far = s.ns.Beside()
	s.ns.Wire("eth0", s.far, "eth0")
	s.ns.Add("eth0", "192.0.2.11/24")
	s.ns.Add("eth0", vipText+"/32")
	s.ns.Add("eth0", vip2Text+"/32")
	s.far.Add("eth0", "192.0.2.1/24")
	return s
}

func (s *site) options(until int64) Options {
	return Options{Mode: BPF, VIPs: map[netip.Addr]int64{vip: until, vip2: 0, vip6: 0}, Record: s.record, Clsact: s.clsact}
}

// open fences the node, with vip held until then.
func (s *site) open(until int64) *Fence {
	s.t.Helper()
	f, err := Open(s.options(until))
	must(s.t, err)
	s.t.Cleanup(func() { _ = f.Close(false) })
	return f
}

func (s *site) index(name string) int { return s.ns.Link(name).Attrs().Index }

// An asker is the far machine's raw socket, from which it asks who has an address.
type asker struct {
	t    testing.TB
	fd   int
	mac  net.HardwareAddr
	next byte
}

func (s *site) asker() *asker {
	s.t.Helper()
	a := &asker{t: s.t, mac: s.far.MAC("eth0")}
	s.far.Do(func() { a.fd = rawSocket(s.t, s.far.Link("eth0").Attrs().Index, unix.ETH_P_ALL) })
	return a
}

func rawSocket(t testing.TB, index int, protocol uint16) int {
	t.Helper()
	swapped := half(protocol)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(swapped))
	must(t, err)
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(swapped), Ifindex: index}))
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// question builds an ARP request with a sender address of its own. The answer goes to
// that address, so it can be recognised.
func (a *asker) question(ip netip.Addr) (frame []byte, as netip.Addr) {
	a.next = a.next%100 + 1
	as = netip.AddrFrom4([4]byte{192, 0, 2, 120 + a.next%100})
	p := arpPacket(1, as, ip)
	copy(p[8:], a.mac)
	frame = etherFrame(kindARP, p)
	copy(frame, []byte{255, 255, 255, 255, 255, 255})
	copy(frame[6:], a.mac)
	return frame, as
}

// answered asks once and waits for the answer, at most for wait.
func (a *asker) answered(ip netip.Addr, wait time.Duration) bool {
	a.t.Helper()
	frame, as := a.question(ip)
	_, err := unix.Write(a.fd, frame)
	must(a.t, err)
	deadline := time.Now().Add(wait)
	buffer := make([]byte, 2048)
	for time.Now().Before(deadline) {
		timeout := unix.NsecToTimeval(max(time.Until(deadline), time.Microsecond).Nanoseconds())
		must(a.t, unix.SetsockoptTimeval(a.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
		n, err := unix.Read(a.fd, buffer)
		if err != nil {
			continue
		}
		f := buffer[:n]
		if n >= 42 && binary.BigEndian.Uint16(f[12:]) == kindARP && f[21] == 2 &&
			[4]byte(f[28:32]) == ip.As4() && [4]byte(f[38:42]) == as.As4() {
			return true
		}
	}
	return false
}

const (
	patience = 5 * time.Second
	silence  = 150 * time.Millisecond // an answer takes 50 µs
)

func (a *asker) wants(ip netip.Addr, answer bool, why string) {
	a.t.Helper()
	wait := silence
	if answer {
		wait = patience
	}
	if got := a.answered(ip, wait); got != answer {
		a.t.Fatalf("%s: %s answered: %t, want %t", why, ip, got, answer)
	}
}

// The address stays bound, but the fence silences it at the deadline.
func TestSilentAfterDeadline(t *testing.T) {
	hooked(t, func(t *testing.T, s *site) {
		asks := s.asker()
		asks.wants(vip, true, "no fence")
		f := s.open(platform.BootNow() + int64(time.Hour))
		asks.wants(vip, true, "held")
		asks.wants(vip2, false, "not held")
		asks.wants(node, true, "an address that is no VIP")
		for attempt := 1; ; attempt++ { // a machine that stands still hears nothing, too
			until := platform.BootNow() + int64(300*time.Millisecond)
			must(t, f.Set(vip, until))
			last := int64(0)
			for platform.BootNow() < until+int64(50*time.Millisecond) {
				before := platform.BootNow()
				if asks.answered(vip, 5*time.Millisecond) {
					last = before
				}
			}
			t.Logf("last answered question %v before the deadline", time.Duration(until-last))
			if last >= until {
				t.Errorf("answered a question asked %v past the deadline", time.Duration(last-until))
			}
			if until-last <= int64(100*time.Millisecond) {
				break
			}
			if attempt == 5 {
				t.Fatalf("silent %v before the deadline, and too early in each of %d attempts", time.Duration(until-last), attempt)
			}
		}
		asks.wants(node, true, "an address that is no VIP")
		must(t, f.Set(vip, platform.BootNow()+int64(time.Hour)))
		asks.wants(vip, true, "held again")
		must(t, f.Set(vip, 0))
		asks.wants(vip, false, "released")
		must(t, f.Close(true))
		asks.wants(vip, true, "the fence removed")
		asks.wants(vip2, true, "the fence removed")
		s.nothingLeft()
	})
}

// nothingLeft checks that no program, no queueing discipline and no record is left.
func (s *site) nothingLeft() {
	s.t.Helper()
	if left := s.attached("eth0"); len(left) != 0 {
		s.t.Errorf("programs %v are left", left)
	}
	qdiscs, err := s.ns.Netlink.QdiscList(s.ns.Link("eth0"))
	must(s.t, err)
	for _, q := range qdiscs {
		if q.Type() == "clsact" {
			s.t.Error("a clsact is left")
		}
	}
	if _, err := os.Stat(s.record); !os.IsNotExist(err) {
		s.t.Errorf("the record is left: %v", err)
	}
}

// attached lists the programs attached to a device, with either hook.
func (s *site) attached(name string) (all []string) {
	s.t.Helper()
	for _, d := range []direction{ingress, egress} {
		found, err := link.QueryPrograms(link.QueryOptions{Target: s.index(name), Attach: d.tcx()})
		must(s.t, err)
		for _, p := range found.Programs {
			prog, err := ebpf.NewProgramFromID(p.ID)
			must(s.t, err)
			info, err := prog.Info()
			must(s.t, err)
			all = append(all, fmt.Sprintf("%s %s", d, info.Name))
			prog.Close()
		}
		filters, err := clsact{links: s.ns.Netlink}.filters(s.index(name), d)
		must(s.t, err)
		for _, f := range filters {
			all = append(all, fmt.Sprintf("%s filter %s", d, f.Name))
		}
	}
	return all
}

func (s *site) wantAttached(name string, want ...string) {
	s.t.Helper()
	if got := s.attached(name); !slices.Equal(got, want) {
		s.t.Errorf("attached to %s: %q, want %q", name, got, want)
	}
}

func (s *site) ours() []string {
	if s.clsact {
		return []string{"ingress filter sipalive_ingress", "egress filter sipalive_egress"}
	}
	return []string{"ingress sipalive_in", "egress sipalive_out"}
}

// An agent that is killed or frozen leaves a VIP that is bound and silent. The next agent
// takes over without anything removed by hand.
func TestOutlivesAgent(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		t.Run(signal.String(), func(t *testing.T) {
			hooked(t, func(t *testing.T, s *site) { outlives(t, s, signal) })
		})
	}
}

func outlives(t *testing.T, s *site, signal syscall.Signal) {
	asks := s.asker()
	agent := exec.Command("/proc/self/exe")
	agent.Env = append(os.Environ(), "FENCE_RECORD="+s.record)
	if s.clsact {
		agent.Env = append(agent.Env, "FENCE_CLSACT=1")
	}
	pipe, err := agent.StdoutPipe()
	must(t, err)
	must(t, agent.Start())
	var until atomic.Int64
	var renewals atomic.Int32
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			var v int64
			if _, err := fmt.Sscanf(lines.Text(), "until %d", &v); err != nil {
				t.Errorf("the agent says %s", lines.Text())
			}
			until.Store(v)
			renewals.Add(1)
		}
	}()
	end := sync.OnceFunc(func() {
		_ = agent.Process.Kill()
		<-read
		_ = agent.Wait()
	})
	t.Cleanup(end)
	for started := time.Now(); renewals.Load() < 20; time.Sleep(time.Millisecond) {
		if time.Since(started) > patience {
			t.Fatal("the agent renews nothing")
		}
	}
	asks.wants(vip, true, "renewed beyond its first lease")
	asks.wants(vip2, false, "not held")
	must(t, agent.Process.Signal(signal))
	if signal == syscall.SIGKILL {
		end()
	}
	asks.wants(vip, true, "the lease still lives")
	time.Sleep(time.Duration(until.Load()-platform.BootNow()) + 100*time.Millisecond)
	asks.wants(vip, false, "past the lease of "+signal.String())
	asks.wants(node, true, "an address that is no VIP")
	s.wantAttached("eth0", s.ours()...)
	end()
	f := s.open(platform.BootNow() + int64(time.Hour))
	s.wantAttached("eth0", s.ours()...)
	asks.wants(vip, true, "held by the next agent")
	asks.wants(vip2, false, "not held by the next agent")
	must(t, f.Close(true))
	s.nothingLeft()
}

// Each frame is really sent in each direction, with no tag and with either kind of tag,
// which the kernel takes off incoming frames and keeps beside the packet.
func TestRulesOnTheWire(t *testing.T) {
	hooked(t, func(t *testing.T, s *site) {
		f := s.open(0)
		inside := s.counter("eth0")
		outgoing := rawSocket(t, s.index("eth0"), 0)
		incoming, tap := 0, 0
		s.far.Do(func() {
			incoming = rawSocket(t, s.far.Link("eth0").Attrs().Index, 0)
			tap = rawSocket(t, s.far.Link("eth0").Attrs().Index, unix.ETH_P_ALL)
		})
		for _, held := range []bool{false, true} {
			until := int64(0)
			if held {
				until = platform.BootNow() + int64(time.Hour)
			}
			must(t, f.Set(vip, until))
			must(t, f.Set(vip6, until))
			for _, r := range rules() {
				for _, tags := range [][]uint16{nil, {0x8100}, {0x88a8}} {
					name := fmt.Sprintf("%s, held %t, tags %x", r.name, held, tags)
					frame := etherFrame(r.kind, r.bytes, tags...)
					before := inside.count()
					_, err := unix.Write(incoming, frame)
					must(t, err)
					// A veth hands the frame over within the system call, or shortly
					// after in a softirq. So a mark is sent after it.
					_, err = unix.Write(incoming, etherFrame(0x88b5, make([]byte, 46)))
					must(t, err)
					inside.waitMark(t)
					if passed := inside.count() > before; passed == (r.in && !held) {
						t.Errorf("%s, ingress: passed %t", name, passed)
					}
					_, err = unix.Write(outgoing, frame)
					if err != nil && err != unix.ENOBUFS { // dropped by a program
						t.Fatal(err)
					}
					if passed := s.heard(tap, frame, outgoing); passed == (r.out && !held) {
						t.Errorf("%s, egress: passed %t", name, passed)
					}
				}
			}
		}
	})
}

// heard tells whether frame came out before a mark that is sent after it.
func (s *site) heard(tap int, frame []byte, outgoing int) bool {
	s.t.Helper()
	mark := etherFrame(0x88b6, make([]byte, 46))
	_, err := unix.Write(outgoing, mark)
	must(s.t, err)
	timeout := unix.NsecToTimeval(patience.Nanoseconds())
	must(s.t, unix.SetsockoptTimeval(tap, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
	found := false
	buffer := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(tap, buffer, 0)
		if err != nil {
			s.t.Fatalf("the mark got lost: %v", err)
		}
		if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		got := buffer[:n]
		if slices.Equal(got, mark) {
			return found
		}
		// The tap sees a frame without the tag that the kernel took off.
		if len(got) >= 14 && strings.HasSuffix(string(frame), string(got[14:])) && slices.Equal(got[:12], frame[:12]) {
			found = true
		}
	}
}

// A counter is somebody else's program, behind ours. It counts the frames from our
// hand-made machine that get that far, and marks separately.
type counter struct {
	m     *ebpf.Map
	p     *ebpf.Program
	marks uint64
}

func (s *site) counter(name string) *counter {
	t, c := s.t, &counter{}
	t.Helper()
	var err error
	c.m, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	must(t, err)
	c.p, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "foreign", Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.Mov.Imm(asm.R2, 6), // source address and type
		asm.Mov.Reg(asm.R3, asm.R10), asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 8),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "next"),
		asm.LoadMem(asm.R1, asm.R10, -8, asm.Word),
		asm.JNE.Imm(asm.R1, int32(binary.NativeEndian.Uint32(macA)), "next"),
		asm.LoadMem(asm.R2, asm.R10, -2, asm.Half),
		asm.LoadMapValue(asm.R1, c.m.FD(), 0),
		asm.JNE.Imm(asm.R2, half(0x88b5), "add"),
		asm.Add.Imm(asm.R1, 8),
		asm.Mov.Imm(asm.R3, 1).WithSymbol("add"),
		asm.StoreXAdd(asm.R1, asm.R3, asm.DWord),
		asm.Mov.Imm(asm.R0, verdictNext).WithSymbol("next"),
		asm.Return(),
	}})
	must(t, err)
	t.Cleanup(func() { c.p.Close(); c.m.Close() })
	if s.clsact {
		must(t, s.ns.Netlink.FilterAdd(&netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{LinkIndex: s.index(name),
			Parent: ingress.clsact(), Handle: 1, Priority: 2, Protocol: unix.ETH_P_ALL}, Fd: c.p.FD(), Name: "foreign", DirectAction: true}))
		return c
	}
	must(t, link.RawAttachProgram(link.RawAttachProgramOptions{Target: s.index(name), Program: c.p, Attach: ebpf.AttachTCXIngress, Anchor: link.Tail()}))
	return c
}

func (c *counter) both() (v [2]uint64) {
	_ = c.m.Lookup(uint32(0), &v)
	return v
}

func (c *counter) count() uint64 { return c.both()[0] }

func (c *counter) waitMark(t testing.TB) {
	t.Helper()
	c.marks++
	for end := time.Now().Add(patience); c.both()[1] < c.marks; {
		if time.Now().After(end) {
			t.Fatal("the mark got lost")
		}
	}
}

// A tag that the kernel keeps beside an outgoing packet, as for a VLAN device, hides
// nothing. Here a program in front of ours adds the tag.
func TestTagBesideThePacket(t *testing.T) {
	s := newSite(t)
	f := s.open(0)
	push, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "push", Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R2, half(unix.ETH_P_8021Q)),
		asm.Mov.Imm(asm.R3, 100),
		asm.FnSkbVlanPush.Call(),
		asm.Mov.Imm(asm.R0, verdictNext),
		asm.Return(),
	}})
	must(t, err)
	defer push.Close()
	must(t, link.RawAttachProgram(link.RawAttachProgramOptions{Target: s.index("eth0"), Program: push, Attach: ebpf.AttachTCXEgress, Anchor: link.Head()}))
	s.wantAttached("eth0", "ingress sipalive_in", "egress push", "egress sipalive_out")
	outgoing := rawSocket(t, s.index("eth0"), 0)
	for _, held := range []bool{false, true} {
		if held {
			must(t, f.Set(vip, 1<<62))
			must(t, f.Set(vip6, 1<<62))
		}
		for _, r := range rules() {
			_, before := f.Drops()
			_, _ = unix.Write(outgoing, etherFrame(r.kind, r.bytes)) // refused if it is dropped
			_, after := f.Drops()
			if dropped := after > before; dropped != (r.out && !held) {
				t.Errorf("%s, held %t: dropped %t", r.name, held, dropped)
			}
		}
	}
}
