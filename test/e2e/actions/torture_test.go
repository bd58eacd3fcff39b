package actions

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

const (
	tortureVIPs  = 4
	tortureMoves = 250 // of each
	tortureBeat  = 50 * time.Millisecond
	// A machine of its own must keep 20 ms. Here three agents share two cores with all
	// that they run, and with any other work on this machine.
	lateBeat = 200 * time.Millisecond
)

// nasty is an action that misbehaves in a different way at each epoch.
const nasty = `#!/bin/sh
case $((SIPALIVE_EPOCH % 6)) in
0) sleep 1000 ;;
1) exit 7 ;;
2) sleep 1000 & (sleep 1000 &) ; exit 0 ;;
3) yes "this is printed for ever" ;;
4) trap '' TERM INT HUP QUIT; while :; do sleep 1000; done ;;
esac
`

// TestTorture: a thousand takeovers whose actions hang, fail, leave daemons behind, print
// for ever and ignore signals. No takeover is lost or out of order, no process is left,
// and the heartbeats are on time.
func TestTorture(t *testing.T) {
	realtime := func(spec lab.Spec) lab.Spec { // as its unit allows; three agents share this machine with what they run
		return spec.By("/usr/bin/chrt", "--rr", "50")
	}
	s := start(t, cluster.Options{VIPs: tortureVIPs, Agent: realtime, TOML: "[timing]\nlease = \"2s\"\nheartbeat = \"50ms\"\nhold_down = \"0s\"\n"}, func(s *site) string {
		say, bad := s.script("note", note), s.script("nasty", nasty)
		return action("prepare", "", say, "ready") +
			action("acquire", "", say, "first") + action("acquire", "timeout = \"60ms\"", bad) + action("acquire", "", say, "last") +
			action("release", "", say, "gone")
	})
	s.await("every VIP at home", func(context.Context) error {
		for v, st := range s.status(0).VIPs {
			if home := s.Node(v % 3).Name; st.Holder != home || st.Unchecked {
				return fmt.Errorf("%s at %q", st.Name, st.Holder)
			}
		}
		return nil
	})
	var beats []*beatObserver
	for i := range s.Nodes() {
		beats = append(beats, s.observeBeats(i))
	}
	began := time.Now()
	var wg sync.WaitGroup
	for v := range tortureVIPs {
		wg.Go(func() { s.torture(v) })
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	t.Logf("%d takeovers in %s", tortureVIPs*tortureMoves, time.Since(began).Round(time.Second))
	s.nothingLost()
	s.nothingLeft()
	for i, b := range beats {
		c := s.status(i).Counters
		t.Logf("%s: slowest step %d us, latest wake-up %d us", s.Node(i).Name, c["loop_slowest_step_us"], c["loop_latest_wakeup_us"])
		for from, late := range b.stop() {
			p99 := late[len(late)*99/100]
			t.Logf("heartbeats of %v at %s: %d, median delay %v, p99 %v, worst %v", from, s.Node(i).Name, len(late),
				late[len(late)/2], p99, late[len(late)-1])
			if p99 > lateBeat {
				t.Errorf("heartbeats of %v at %s: p99 delay %v, want at most %v", from, s.Node(i).Name, p99, lateBeat)
			}
		}
	}
}

// torture moves one VIP around the nodes, each time as soon as its acquire chain has
// ended. It asks the holder, which knows first.
func (s *site) torture(vip int) {
	name := cluster.VIPName(vip)
	for i := range tortureMoves {
		to := s.Node((vip + i + 1) % 3).Name
		ctx, cancel := cluster.Deadline(patience)
		_, err := s.Client((vip+i)%3).Do(ctx, control.Command{Kind: control.Move, VIP: name, Node: to})
		var epoch uint64
		if err == nil {
			epoch, err = s.acquired(ctx, name, to)
		}
		if err == nil {
			err = s.waitLine(ctx, fmt.Sprintf("%s acquire %s %d last", to, name, epoch))
		}
		cancel()
		if err != nil {
			s.t.Errorf("move %d of %s to %s: %v", i+1, name, to, err)
			return
		}
	}
}

func (s *site) acquired(ctx context.Context, vip, node string) (epoch uint64, err error) {
	st, err := s.Client(s.Index(node)).Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, v := range st.VIPs {
		if v.Name == vip && v.Holder == node {
			return v.Epoch, nil
		}
	}
	return 0, fmt.Errorf("%s does not say that it holds %s", node, vip)
}

// waitLine waits for a line near the end of the record, which grows.
func (s *site) waitLine(ctx context.Context, line string) error {
	return lab.WaitFor(ctx, line, func() error {
		f, err := os.Open(s.record)
		if err != nil {
			return err
		}
		defer f.Close()
		tail := make([]byte, 16<<10)
		info, err := f.Stat()
		if err != nil {
			return err
		}
		n, _ := f.ReadAt(tail, max(0, info.Size()-int64(len(tail))))
		if !strings.Contains(string(tail[:n]), line+"\n") {
			return errors.New("not yet")
		}
		return nil
	})
}

// nothingLost reads the record. Each takeover must have every action once, in order, and
// no node may run an action of an older epoch after one of a newer.
func (s *site) nothingLost() {
	type taking struct {
		node  string
		epoch uint64
	}
	for v := range tortureVIPs {
		name := cluster.VIPName(v)
		s.recordedRelease(name)
		chains := map[taking][]string{}
		newest := map[string]uint64{}
		takeovers := 0
		for _, line := range s.lines() {
			f := strings.Fields(line)
			if len(f) != 5 {
				s.t.Fatalf("record: %q", line)
			}
			if f[2] != name {
				continue
			}
			epoch, err := strconv.ParseUint(f[3], 10, 64)
			s.must(err)
			at := taking{f[0], epoch}
			chains[at] = append(chains[at], f[1]+" "+f[4])
			if epoch < newest[f[0]] {
				s.t.Errorf("%s on %s: %s of epoch %d after one of epoch %d", name, f[0], f[1], epoch, newest[f[0]])
			}
			newest[f[0]] = max(newest[f[0]], epoch)
			if f[1] == "prepare" {
				takeovers++
			}
		}
		whole := []string{"prepare ready", "acquire first", "acquire last", "release gone"}
		for at, got := range chains {
			want := whole
			if at.epoch == 1 {
				want = whole[1:] // the cold start: no node was asked to prepare for it
			}
			if at.epoch == newest[at.node] && len(got) == len(want)-1 && s.holds(at.node, name) {
				want = want[:len(want)-1]
			}
			if at.epoch == 1 && !slices.Contains(got, "acquire last") {
				want = slices.DeleteFunc(slices.Clone(want), func(l string) bool { return l == "acquire last" }) // moved before that action could run
			}
			if !slices.Equal(got, want) {
				s.t.Errorf("%s on %s, epoch %d: %q, want %q", name, at.node, at.epoch, got, want)
			}
		}
		if takeovers != tortureMoves {
			s.t.Errorf("%s: %d takeovers, want %d", name, takeovers, tortureMoves)
		}
	}
}

func (s *site) holds(node, vip string) bool {
	for _, v := range s.status(s.Index(node)).VIPs {
		if v.Name == vip {
			return v.Holder == node
		}
	}
	return false
}

// recordedRelease waits for the release actions of the last move, which run beside the
// acquire chain.
func (s *site) recordedRelease(vip string) {
	s.await("the last release of "+vip, func(context.Context) error {
		gone, taken := 0, 0
		for _, line := range s.lines() {
			switch {
			case strings.Contains(line, " release "+vip+" "):
				gone++
			case strings.Contains(line, " acquire "+vip+" ") && strings.HasSuffix(line, " first"):
				taken++
			}
		}
		if gone != taken-1 {
			return fmt.Errorf("%d acquired, %d released", taken, gone)
		}
		return nil
	})
}

// nothingLeft waits until no process has an action's environment any more.
func (s *site) nothingLeft() {
	s.await("no process of an action left", func(context.Context) error {
		files, err := filepath.Glob("/proc/[0-9]*/environ")
		if err != nil {
			return err
		}
		for _, f := range files {
			env, err := os.ReadFile(f)
			if err == nil && strings.Contains(string(env), "SIPALIVE_EPOCH=") && strings.Contains(string(env), "SIPALIVE_ADDRESS=10.77.") {
				return fmt.Errorf("%s: %q", f, env)
			}
		}
		return nil
	})
}

// beatObserver records when one node hears each packet that comes directly from another
// agent.
type beatObserver struct {
	t    *testing.T
	fd   int
	mu   sync.Mutex
	at   map[[4]byte][]time.Duration
	done chan struct{}
}

func (s *site) observeBeats(node int) *beatObserver {
	s.t.Helper()
	o := &beatObserver{t: s.t, at: map[[4]byte][]time.Duration{}, done: make(chan struct{})}
	s.must(s.Node(node).Do(func() (err error) {
		o.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(lab.NetworkOrder(unix.ETH_P_IP)))
		return err
	}))
	s.must(unix.SetsockoptInt(o.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)) // the kernel's time, since this test may be late
	s.must(unix.SetsockoptTimeval(o.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}))
	s.must(unix.SetsockoptInt(o.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20))
	go o.run()
	return o
}

func (o *beatObserver) run() {
	packet, control := make([]byte, 128), make([]byte, 256)
	for {
		select {
		case <-o.done:
			unix.Close(o.fd)
			return
		default:
		}
		n, cn, _, from, err := unix.Recvmsg(o.fd, packet, control, 0)
		link, is := from.(*unix.SockaddrLinklayer)
		if err != nil || !is || link.Pkttype != unix.PACKET_HOST || n < 28 || packet[9] != unix.IPPROTO_UDP || uint16(packet[22])<<8|uint16(packet[23]) != 7946 {
			continue
		}
		messages, err := unix.ParseSocketControlMessage(control[:cn])
		if err != nil || len(messages) == 0 || len(messages[0].Data) < int(unsafe.Sizeof(unix.Timespec{})) {
			continue
		}
		at := (*unix.Timespec)(unsafe.Pointer(&messages[0].Data[0]))
		sender := [4]byte(packet[12:16])
		if [4]byte(link.Addr[2:6]) != sender { // the lab's MACs contain the addresses: this packet came through the gateway
			continue
		}
		o.mu.Lock()
		o.at[sender] = append(o.at[sender], time.Duration(at.Nano()))
		o.mu.Unlock()
	}
}

// stop returns, by sender, how late each heartbeat was, sorted. Other packets between two
// heartbeats, such as the answer to an ask, do not count.
func (o *beatObserver) stop() map[string][]time.Duration {
	close(o.done)
	o.mu.Lock()
	defer o.mu.Unlock()
	out := map[string][]time.Duration{}
	for sender, at := range o.at {
		var late []time.Duration
		for i := 1; i < len(at); i++ {
			if gap := at[i] - at[i-1]; gap > tortureBeat/2 {
				late = append(late, max(0, gap-tortureBeat))
			}
		}
		if len(at) < 50 {
			o.t.Errorf("only %d packets of %v", len(at), sender)
			continue
		}
		for whole := int((at[len(at)-1] - at[0]) / tortureBeat); len(late) < whole; {
			late = append(late, 0) // a heartbeat that came between other packets
		}
		slices.Sort(late)
		out[fmt.Sprintf("%d.%d.%d.%d", sender[0], sender[1], sender[2], sender[3])] = late
	}
	return out
}
