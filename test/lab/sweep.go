package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// runName marks a run in the names of its namespaces and its data directory:
// prefix-pid-starttime-id. The start time tells the run from another process that got the
// same process id later.
type runName struct {
	prefix string
	pid    int
	start  uint64 // clock ticks since boot: field 22 of /proc/PID/stat
	id     string
}

var runPattern = regexp.MustCompile(`^([a-z][a-z0-9]*)-([0-9]+)-([0-9a-z]+)-([0-9a-z]+)(-.*)?$`)

func (r runName) String() string {
	return fmt.Sprintf("%s-%d-%s-%s", r.prefix, r.pid, strconv.FormatUint(r.start, 36), r.id)
}

func parseRunName(name string) (runName, bool) {
	m := runPattern.FindStringSubmatch(name)
	if m == nil {
		return runName{}, false
	}
	pid, err := strconv.Atoi(m[2])
	if err != nil {
		return runName{}, false
	}
	start, err := strconv.ParseUint(m[3], 36, 64)
	if err != nil {
		return runName{}, false
	}
	return runName{m[1], pid, start, m[4]}, true
}

func (r runName) alive() bool {
	start, err := startTime(r.pid)
	return err == nil && start == r.start
}

// startTime returns when a process started. A zombie counts as ended.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may itself contain spaces and parentheses: count from the
	// last ")".
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields after the name, want 20 or more", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// Sweep removes what dead runs with this prefix left behind: processes still inside their
// namespaces, the namespaces, and the data directories that New made. It returns the
// names that it removed. It leaves a run alone whose process lives.
func Sweep(prefix string) ([]string, error) {
	var swept []string
	var errs []error
	for _, dir := range []string{namespaceDir, os.TempDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("sweep: %w", err))
		}
		for _, entry := range entries {
			run, ok := parseRunName(entry.Name())
			if !ok || run.prefix != prefix || run.alive() {
				continue
			}
			path := filepath.Join(dir, entry.Name())
			if dir == namespaceDir {
				err = sweepNamespace(path)
			} else {
				err = os.RemoveAll(path)
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			swept = append(swept, entry.Name())
		}
	}
	return swept, errors.Join(errs...)
}

func sweepNamespace(path string) error {
	id, err := identify(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // another run's sweep was here first
	}
	if err != nil {
		return fmt.Errorf("sweep %s: %w", path, err)
	}
	if err := endProcessesIn(map[namespaceID]bool{id: true}); err != nil {
		return fmt.Errorf("sweep %s: %w", path, err)
	}
	return removeNamed(path)
}

// endProcessesIn kills every process, except this one, whose main thread is in one of
// these namespaces: workers that left their process group, or a shell that somebody left
// there. It returns when it finds none.
func endProcessesIn(ids map[namespaceID]bool) error {
	for deadline := Now() + 5*time.Second; ; {
		left, err := killProcessesIn(ids)
		if err != nil || left == 0 {
			return err
		}
		if Now() > deadline {
			return fmt.Errorf("end processes in namespaces: %d still there after 5 s of SIGKILL", left)
		}
	}
}

func killProcessesIn(ids map[namespaceID]bool) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	found := 0
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if killIfIn(pid, ids) {
			found++
		}
	}
	return found, nil
}

// killIfIn opens the pidfd first and checks the namespace second. So it kills the process
// that it checked, even if the process id passes to another process.
func killIfIn(pid int, ids map[namespaceID]bool) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	id, err := identify(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil || !ids[id] {
		return false
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return false
	}
	// Readable means that the process has ended. After EINTR or the timeout the caller
	// just looks again.
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
	return true
}
