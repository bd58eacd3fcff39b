package platform

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// LockMemory keeps in memory every page that this process has touched or will touch
// (mlockall(2)), so that it never waits for a disk when the machine runs short. Pages are
// locked when they are first touched (MCL_ONFAULT, Linux 4.4). Without that, all of the
// Go runtime's reserved address space would be filled (42 MB instead of 2.5, measured).
//
// If there is a limit, a later allocation above it would fail and end the process. So
// then nothing is locked, and the error says what to change.
func LockMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	if limit.Cur != unix.RLIM_INFINITY && len(MissingCapabilities("CAP_IPC_LOCK")) > 0 {
		return fmt.Errorf("lock memory: the limit is %d kB (needs LimitMEMLOCK=infinity in the unit, or CAP_IPC_LOCK)", limit.Cur/1024)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lock memory: %w (does the unit's SystemCallFilter allow mlockall?)", err)
	}
	return nil
}

// OnTmpfs reports whether a directory is kept in memory. Writes there never wait for a
// disk, and are lost at the next boot.
func OnTmpfs(dir string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false, fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	return st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC, nil
}
