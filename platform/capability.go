package platform

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// capabilities are all the capabilities that some part of the agent asks about.
var capabilities = map[string]uint{
	"CAP_KILL":             unix.CAP_KILL,
	"CAP_SETGID":           unix.CAP_SETGID,
	"CAP_SETUID":           unix.CAP_SETUID,
	"CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE,
	"CAP_NET_ADMIN":        unix.CAP_NET_ADMIN,
	"CAP_NET_RAW":          unix.CAP_NET_RAW,
	"CAP_IPC_LOCK":         unix.CAP_IPC_LOCK,
	"CAP_SYS_ADMIN":        unix.CAP_SYS_ADMIN,
	"CAP_SYS_NICE":         unix.CAP_SYS_NICE,
	"CAP_SYS_RESOURCE":     unix.CAP_SYS_RESOURCE,
	"CAP_PERFMON":          unix.CAP_PERFMON,
	"CAP_BPF":              unix.CAP_BPF,
}

// MissingCapabilities returns those of names that the calling thread does not have in
// effect, in the order given. Unknown names count as missing.
func MissingCapabilities(names ...string) []string {
	missing, err := MissingCapabilitiesOf(0, names...)
	if err != nil {
		return names
	}
	return missing
}

// MissingCapabilitiesOf is MissingCapabilities for the main thread of process pid. 0
// means the calling thread.
func MissingCapabilitiesOf(pid int, names ...string) ([]string, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3, Pid: int32(pid)}
	var data [2]unix.CapUserData // version 3: two words of 32 capabilities each
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil, fmt.Errorf("ask for the capabilities of process %d: %w", pid, err)
	}
	var missing []string
	for _, name := range names {
		bit, known := capabilities[name]
		if !known || data[bit/32].Effective&(1<<(bit%32)) == 0 {
			missing = append(missing, name)
		}
	}
	return missing, nil
}
