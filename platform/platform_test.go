package platform

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/platform/nstest"
)

func TestBootNowIsTheBootClock(t *testing.T) {
	before := BootNow()
	text, err := os.ReadFile("/proc/uptime") // CLOCK_BOOTTIME in hundredths
	if err != nil {
		t.Fatal(err)
	}
	after := BootNow()
	var uptime float64
	if _, err := fmt.Sscan(string(text), &uptime); err != nil {
		t.Fatal(err)
	}
	ns := int64(uptime * 1e9)
	if after < before || ns < before-2e7 || ns > after+2e7 {
		t.Fatalf("boot clock %d..%d, /proc/uptime says %d", before, after, ns)
	}
}

func TestNotifySystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := NotifySystemd("READY=1"); err != nil {
		t.Fatalf("without systemd: %v", err)
	}
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := NotifySystemd("READY=1\nSTATUS=holds vip1"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := socket.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1\nSTATUS=holds vip1" {
		t.Fatalf("got %q, %v", buf[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", path+"-gone")
	if err := NotifySystemd("READY=1"); err == nil || !strings.HasPrefix(err.Error(), "notify systemd: ") {
		t.Fatalf("nobody listens: %v", err)
	}
}

func TestWatchdogInterval(t *testing.T) {
	for usec, want := range map[string]time.Duration{"": 0, "3000000": 3 * time.Second} {
		t.Setenv("WATCHDOG_USEC", usec)
		if got, err := WatchdogInterval(); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", usec, got, err, want)
		}
	}
	t.Setenv("WATCHDOG_PID", "1")
	if got, err := WatchdogInterval(); err != nil || got != 0 {
		t.Errorf("another process is watched: %v, %v", got, err)
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	if _, err := WatchdogInterval(); err == nil {
		t.Error("nonsense accepted")
	}
}

func TestMissingCapabilities(t *testing.T) {
	runtime.LockOSThread() // never unlocked: this thread loses a capability
	if missing := MissingCapabilities("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"); len(missing) != 0 {
		t.Fatalf("root lacks %v", missing)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_NET_RAW
	data[1].Effective &^= 1 << (unix.CAP_BPF - 32)
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	got := MissingCapabilities("CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NONSENSE")
	if want := []string{"CAP_BPF", "CAP_NET_RAW", "CAP_NONSENSE"}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	release, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Lock(path)
	want := fmt.Sprintf("lock %s: held by process %d (one agent per node; stop that one first): ", path, os.Getpid())
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Fatalf("second lock: %v, want %s", err, want)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(path)
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	if err := again(); err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(filepath.Join(path, "x")); err == nil || strings.Contains(err.Error(), "open") {
		t.Fatalf("a path that cannot be: %v", err)
	}
}

// TestLockEndsWithItsProcess: a holder that is killed leaves its id in the file, but not
// the lock.
func TestLockEndsWithItsProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if os.Getenv("SIPALIVE_LOCK") != "" {
		if _, err := Lock(os.Getenv("SIPALIVE_LOCK")); err != nil {
			t.Fatal(err)
		}
		fmt.Println("locked")
		_, _ = io.Copy(io.Discard, os.Stdin) // until killed; the end of the parent ends it too
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestLockEndsWithItsProcess$")
	child.Env = append(os.Environ(), "SIPALIVE_LOCK="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := child.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	if _, err := Lock(path); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("held by process %d", child.Process.Pid)) {
		t.Errorf("while the child lives: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // "signal: killed"
	release, err := Lock(path)
	if err != nil {
		t.Fatalf("after its death: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
}

func TestInterfaces(t *testing.T) {
	ns := nstest.Enter(t)
	ns.Wire("eth0", ns.Beside(), "eth0")
	ns.Add("eth0", "192.0.2.11/24")
	ns.Add("eth0", "2001:db8::11/64")
	addrs, err := LocalAddresses()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"127.0.0.1", "192.0.2.11", "2001:db8::11"} {
		if !slices.Contains(addrs, netip.MustParseAddr(s)) {
			t.Errorf("%s is not in %v", s, addrs)
		}
	}
	for s, want := range map[string]string{"192.0.2.11": "eth0", "::ffff:192.0.2.11": "eth0", "127.0.0.1": "lo", "2001:db8::11": "eth0"} {
		if got, err := InterfaceOf(netip.MustParseAddr(s)); err != nil || got != want {
			t.Errorf("interface of %s: %q, %v; want %s", s, got, err, want)
		}
	}
	if _, err := InterfaceOf(netip.MustParseAddr("192.0.2.12")); err == nil {
		t.Error("found the interface of an address nobody has")
	}

	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	link := ns.Link("eth0").Attrs()
	if index, err := InterfaceIndex(fd, "eth0"); err != nil || index != link.Index {
		t.Errorf("index %d, %v; want %d", index, err, link.Index)
	}
	if name, err := InterfaceName(fd, link.Index); err != nil || name != "eth0" {
		t.Errorf("name of %d: %q, %v", link.Index, name, err)
	}
	if _, err := InterfaceName(fd, 4711); err != unix.ENODEV {
		t.Errorf("name of an index nobody has: %v", err)
	}
	if mac, err := EthernetAddress(fd, "eth0"); err != nil || !slices.Equal(mac[:], link.HardwareAddr) {
		t.Errorf("address %x, %v; want %s", mac, err, link.HardwareAddr)
	}
	if _, err := EthernetAddress(fd, "lo"); err != unix.EAFNOSUPPORT {
		t.Errorf("the loopback has a MAC address: %v", err)
	}
	if up, err := InterfaceRunning(fd, "eth0"); err != nil || !up {
		t.Errorf("eth0 running: %t, %v", up, err)
	}
	if out, err := exec.Command("ip", "link", "set", "eth0", "down").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if up, err := InterfaceRunning(fd, "eth0"); err != nil || up {
		t.Errorf("eth0 running after it was set down: %t, %v", up, err)
	}
	if _, err := InterfaceRunning(fd, "eth7"); err != unix.ENODEV {
		t.Errorf("eth7 running: %v", err)
	}
	for _, name := range []string{"eth7", "a-name-that-is-too-long", ""} {
		if _, err := InterfaceIndex(fd, name); err != unix.ENODEV {
			t.Errorf("index of %q: %v", name, err)
		}
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if locked, err := Locked(path); locked || err != nil {
		t.Errorf("no file: %v, %v", locked, err)
	}
	release, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if locked, err := Locked(path); !locked || err != nil {
		t.Errorf("held: %v, %v", locked, err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if locked, err := Locked(path); locked || err != nil {
		t.Errorf("released: %v, %v", locked, err)
	}
}
