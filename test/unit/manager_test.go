package unit

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/godbus/dbus/v5"
)

// busConfig configures a message bus on one socket that lets root do anything.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>
`

// startBus runs a dbus-daemon for this test and returns its address.
func startBus(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus") // short: the path of a socket may have 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, config := filepath.Join(dir, "socket"), filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, socket), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	tether(t, cmd)
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-daemon says no address: %v", err)
	}
	return strings.TrimSpace(address)
}

// tether starts a program that ends with the test, however the test ends. The kernel
// kills it when the thread that forked it ends, so that thread is kept.
func tether(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, over := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		started <- cmd.Start()
		<-over
	}()
	if err := <-started; err != nil {
		close(over)
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		close(over)
	})
}

// manager answers on a bus like systemd for one unit (org.freedesktop.systemd1(5)).
type manager struct {
	mu   sync.Mutex
	job  string // type of the unit's job; "" for none
	pids map[uint32]bool
	odd  string        // how it misbehaves
	hang chan struct{} // closed at the end of the test
}

const (
	managerName = "org.freedesktop.systemd1"
	managerPath = dbus.ObjectPath("/org/freedesktop/systemd1")
	unitPath    = managerPath + "/unit/sipalive_2eservice"
	jobPath     = managerPath + "/job/4711"
)

// startManager connects a manager to the bus.
func startManager(t *testing.T, address string) *manager {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	m := &manager{pids: map[uint32]bool{}, hang: make(chan struct{})}
	t.Cleanup(func() { close(m.hang) })
	bus, err := dbus.Connect(address, dbus.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	for path, iface := range map[dbus.ObjectPath]string{managerPath: managerName + ".Manager",
		unitPath: "org.freedesktop.DBus.Properties", jobPath: "org.freedesktop.DBus.Properties"} {
		if err := bus.Export(exported{m}, path, iface); err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := bus.RequestName(managerName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("take the name %s: %v, %v", managerName, reply, err)
	}
	return m
}

// runs sets the manager's job for the unit of a process.
func (m *manager) runs(job string, pid int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.job = job
	m.pids[uint32(pid)] = true
}

// is makes the manager misbehave in one way.
func (m *manager) is(odd string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.odd = odd
}

// exported has the methods that others may call.
type exported struct{ m *manager }

func busError(name, text string) *dbus.Error { return dbus.NewError(name, []any{text}) }

func (e exported) GetUnitByPID(pid uint32) (dbus.ObjectPath, *dbus.Error) {
	e.m.mu.Lock()
	known, odd := e.m.pids[pid], e.m.odd
	e.m.mu.Unlock()
	if odd == "no answer" {
		<-e.m.hang
	}
	if !known {
		return "", busError(managerName+".NoUnitForPID", fmt.Sprintf("PID %d does not belong to any loaded unit.", pid))
	}
	return unitPath, nil
}

func (e exported) Get(iface, name string) (dbus.Variant, *dbus.Error) {
	e.m.mu.Lock()
	job, odd := e.m.job, e.m.odd
	e.m.mu.Unlock()
	switch {
	case iface == managerName+".Unit" && name == "Job" && odd == "another type":
		return dbus.MakeVariant("restart"), nil
	case iface == managerName+".Unit" && name == "Job" && job == "":
		return dbus.MakeVariant(struct {
			ID   uint32
			Path dbus.ObjectPath
		}{0, "/"}), nil
	case iface == managerName+".Unit" && name == "Job":
		return dbus.MakeVariant(struct {
			ID   uint32
			Path dbus.ObjectPath
		}{4711, jobPath}), nil
	case iface == managerName+".Job" && name == "JobType" && odd == "no answer about the job":
		<-e.m.hang
	case iface == managerName+".Job" && name == "JobType" && odd != "job gone":
		return dbus.MakeVariant(job), nil
	}
	return dbus.Variant{}, busError("org.freedesktop.DBus.Error.UnknownObject", "Unknown object.")
}
