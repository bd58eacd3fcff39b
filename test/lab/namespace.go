package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespaceDir is the directory where iproute2 keeps named namespaces.
const namespaceDir = "/run/netns"

// namespace is one named network namespace that the lab made.
type namespace struct {
	name  string
	fd    netns.NsHandle
	id    namespaceID
	route *netlink.Handle // a NETLINK_ROUTE socket inside it

	mu     sync.Mutex
	work   chan func() // jobs for the thread that starts processes; nil until the first job
	closed bool
}

// namespaceID identifies a namespace: all paths to one namespace have the same ID.
type namespaceID struct{ dev, ino uint64 }

func identify(path string) (namespaceID, error) {
	info, err := os.Stat(path)
	if err != nil {
		return namespaceID{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return namespaceID{}, fmt.Errorf("stat %s: no inode number", path)
	}
	return namespaceID{uint64(st.Dev), st.Ino}, nil
}

func createNamespace(name string) (*namespace, error) {
	n := &namespace{name: name, fd: netns.None()}
	err := onOwnThread(func() error {
		fd, err := netns.NewNamed(name)
		if err != nil {
			return fmt.Errorf("create namespace %s: %w (needs root)", name, err)
		}
		n.fd = fd
		return plainKernel()
	})
	if err == nil {
		n.id, err = identify(n.path())
	}
	if err == nil {
		n.route, err = netlink.NewHandleAt(n.fd, unix.NETLINK_ROUTE)
	}
	if err != nil {
		return nil, errors.Join(err, n.remove())
	}
	return n, nil
}

func (n *namespace) path() string { return filepath.Join(namespaceDir, n.name) }

// do runs fn inside the namespace, on a thread that ends with fn.
func (n *namespace) do(fn func() error) error {
	return onOwnThread(func() error {
		if err := netns.Set(n.fd); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.name, err)
		}
		return fn()
	})
}

// onStarter runs fn inside the namespace, on a thread that lives as long as the lab.
// Processes are forked from that thread, because PR_SET_PDEATHSIG fires when the forking
// thread ends, not when its process ends.
func (n *namespace) onStarter(fn func() error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return fmt.Errorf("enter namespace %s: the lab is closed", n.name)
	}
	if n.work == nil {
		work, ready := make(chan func()), make(chan error, 1)
		go func() {
			ready <- n.do(func() error {
				ready <- nil
				for job := range work {
					job()
				}
				return nil
			})
		}()
		if err := <-ready; err != nil {
			return err
		}
		n.work = work
	}
	done := make(chan error, 1)
	n.work <- func() { done <- fn() }
	return <-done
}

// remove ends the starter thread, closes the sockets and removes the name. The kernel
// drops the namespace and its content when nobody uses it any more. Removing twice is no
// error.
func (n *namespace) remove() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	if n.work != nil {
		close(n.work)
	}
	if n.route != nil {
		n.route.Close()
	}
	if n.fd.IsOpen() {
		n.fd.Close()
	}
	return removeNamed(n.path())
}

// removeNamed removes a namespace's name. EINVAL means that the run was killed after it
// had made the file and before it had mounted the namespace on it.
func removeNamed(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove namespace %s: %w", path, err)
	}
	return nil
}

// onOwnThread runs fn on a new thread that ends with fn, so that changes fn makes to its
// thread (setns, unshare) reach no other code.
func onOwnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread never ends, and /proc/self shows its namespaces. Hold it
			// here while another thread runs fn.
			done <- onOwnThread(fn)
			runtime.UnlockOSThread()
			return
		}
		err := errors.New("function in a namespace ended its goroutine (t.Fatal inside Do?)")
		defer func() { done <- err }()
		err = fn()
	}()
	return <-done
}

// plainKernel sets the calling thread's namespace to the kernel's defaults. A new
// namespace copies its IPv4 settings from the machine (a machine that runs containers
// forwards), and the lab must behave the same on every machine.
func plainKernel() error {
	settings := []struct{ key, value string }{
		{"ipv4/ip_forward", "0"}, // first: it resets others
		{"ipv4/conf/*/rp_filter", "0"},
		{"ipv4/conf/*/arp_ignore", "0"},
		{"ipv4/conf/*/arp_announce", "0"},
		{"ipv4/conf/*/arp_accept", "0"},
		{"ipv4/conf/*/arp_filter", "0"},
		{"ipv4/conf/*/promote_secondaries", "0"},
		// IPv6 must send nothing by itself: no router solicitations, no duplicate address
		// detection.
		{"ipv6/conf/*/accept_ra", "0"},
		{"ipv6/conf/*/accept_dad", "0"},
		{"ipv6/conf/*/router_solicitations", "0"},
	}
	for _, s := range settings {
		if err := sysctl(s.key, s.value); err != nil {
			return err
		}
	}
	up, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(up); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// sysctl writes a setting under /proc/sys/net for the calling thread's namespace. `*`
// means both `all` and `default`. A missing IPv6 setting is no error: it is missing when
// the machine booted without IPv6.
func sysctl(key, value string) error {
	dir, leaf := filepath.Split(key)
	if filepath.Base(dir) == "*" {
		parent := filepath.Dir(filepath.Clean(dir))
		return errors.Join(
			sysctl(filepath.Join(parent, "all", leaf), value),
			sysctl(filepath.Join(parent, "default", leaf), value))
	}
	err := os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0)
	if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(key, "ipv6/") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sysctl %s=%s: %w", key, value, err)
	}
	return nil
}
