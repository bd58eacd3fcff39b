package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process group uses.
type Usage struct {
	CPU      time.Duration // so far, including ended children
	Resident int64         // bytes of memory now
}

// Usage returns what the process and its whole process group use. Living threads count by
// the scheduler's clock (/proc/PID/task/TID/schedstat), ended children by clock ticks of
// 10 ms.
func (p *Process) Usage() (u Usage, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return u, fmt.Errorf("list processes: %w", err)
	}
	found := false
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fields, err := statFields(pid)
		if err != nil || fields[2] != strconv.Itoa(p.Pid) {
			continue // ended, or of another group
		}
		found = true
		if err := u.add(pid, fields); err != nil && pid == p.Pid {
			return u, err
		}
	}
	if !found {
		return u, fmt.Errorf("usage of %s on %s: %w", p.cmd.Path, p.Host.Name, os.ErrProcessDone)
	}
	return u, nil
}

// statFields returns the fields of /proc/PID/stat after the name: state, parent, group
// and so on.
func statFields(pid int) ([]string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 22 {
		return nil, fmt.Errorf("/proc/%d/stat: %d fields after the name, want 22 or more", pid, len(fields))
	}
	return fields, nil
}

func (u *Usage) add(pid int, fields []string) error {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture of Debian
	for _, i := range []int{13, 14} {  // cutime, cstime
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return err
		}
		u.CPU += time.Duration(n) * tick
	}
	pages, err := strconv.ParseInt(fields[21], 10, 64)
	if err != nil {
		return err
	}
	u.Resident += pages * int64(os.Getpagesize())
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return err
	}
	for _, t := range threads {
		stat, err := os.ReadFile(t)
		if errors.Is(err, os.ErrNotExist) {
			continue // a thread that has just ended
		}
		if err != nil {
			return err
		}
		ran, _, _ := strings.Cut(string(stat), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
		u.CPU += time.Duration(ns)
	}
	return nil
}

// Sent returns what a host has sent into the switch so far, by the counters of its eth0.
func (h *Host) Sent() (packets, bytes uint64, err error) {
	link, err := h.ns.route.LinkByName(nic)
	if err != nil {
		return 0, 0, fmt.Errorf("count what %s has sent: %w", h.Name, err)
	}
	s := link.Attrs().Statistics
	return s.TxPackets, s.TxBytes, nil
}
