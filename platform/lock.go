package platform

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Lock takes an exclusive flock(2) on path and writes this process's id into the file, so
// that one agent runs per node. It creates the file if needed. The kernel drops the lock
// when the process ends, however it ends. The file stays: if it were removed, a third
// process could lock a new file while another still holds the old one.
//
// If another process has the lock, the error names that process and wraps
// unix.EWOULDBLOCK.
func Lock(path string) (release func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, errors.Unwrap(err))
	}
	if err := lockExclusively(f); err != nil {
		holder := lockHolder(f)
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: held by %s (one agent per node; stop that one first): %w", path, holder, err)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := writeHolder(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: write process id: %w", path, err)
	}
	return func() error {
		// Empty the file first: a process that then finds the lock taken must not read
		// our id.
		return errors.Join(f.Truncate(0), f.Close())
	}, nil
}

// lockExclusively tries for 50 ms, because a caller of Locked holds the lock for some µs.
func lockExclusively(f *os.File) (err error) {
	for range 10 {
		if err = flock(f, unix.LOCK_EX); !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return err
}

// Locked reports whether some process has the lock. If there is no lock file, no process
// has it. Locked takes a shared lock for a moment, so it only needs to be able to read
// the file.
func Locked(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = flock(f, unix.LOCK_SH)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func writeHolder(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func lockHolder(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(f, 32))
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || convErr != nil {
		return "another process" // it has the lock, but has not written its id yet
	}
	return fmt.Sprintf("process %d", pid)
}
