package platform

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Listener is a socket on which a program waits for packets or connections.
type Listener struct {
	Program string // its name in /proc/PID/comm
	Network string // "udp" or "tcp"
	Local   netip.AddrPort
}

// Listeners returns the sockets on which the named programs wait, or those of every
// program if no name is given. It covers the caller's network namespace; each socket is
// listed once. It reads /proc, which shows a process's open files only to root and to the
// process's own user.
func Listeners(programs ...string) ([]Listener, error) {
	waiting := map[string]Listener{} // by the socket's inode
	for _, network := range []string{"udp", "tcp"} {
		for _, version := range []string{"", "6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + network + version)
			if os.IsNotExist(err) {
				continue // a kernel without IPv6
			}
			if err != nil {
				return nil, fmt.Errorf("list sockets: %w", err)
			}
			parseSockets(string(text), network, waiting)
		}
	}
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	var out []Listener
	for _, name := range names {
		comm, err := os.ReadFile(name) // the process may have ended meanwhile
		program := strings.TrimSpace(string(comm))
		if err != nil || len(programs) > 0 && !slices.Contains(programs, program) {
			continue
		}
		for _, inode := range socketsOf(filepath.Dir(name)) {
			if l, is := waiting[inode]; is {
				l.Program = program
				out = append(out, l)
			}
		}
	}
	slices.SortFunc(out, func(a, b Listener) int {
		return cmp.Or(strings.Compare(a.Program, b.Program), strings.Compare(a.Network, b.Network), a.Local.Compare(b.Local))
	})
	return slices.Compact(out), nil
}

// socketsOf returns the inodes of a process's sockets.
func socketsOf(dir string) (inodes []string) {
	open, _ := os.ReadDir(dir + "/fd") // not readable for us, or gone
	for _, fd := range open {
		target, err := os.Readlink(dir + "/fd/" + fd.Name())
		if inode, is := strings.CutPrefix(target, "socket:["); err == nil && is {
			inodes = append(inodes, strings.TrimSuffix(inode, "]"))
		}
	}
	return inodes
}

// States in /proc/net/tcp and udp (include/net/tcp_states.h): a listening TCP socket, and
// an unconnected UDP socket.
const (
	stateListen = "0A"
	stateClose  = "07"
)

// parseSockets reads a table as described in proc_net_tcp.rst. The second column is the
// local address in the machine's byte order, the fourth the state, the tenth the inode.
func parseSockets(text, network string, into map[string]Listener) {
	want := map[string]string{"tcp": stateListen, "udp": stateClose}[network]
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != want {
			continue
		}
		if local, ok := parseSocketAddress(f[1]); ok {
			into[f[9]] = Listener{Network: network, Local: local}
		}
	}
}

func parseSocketAddress(text string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	n, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 { // each word is in this machine's byte order
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), true
}
