package realinput

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sipalive/test/lab"
)

// floodSize is how many answers each question gets in the flood.
const floodSize = 10_000

// most is the largest payload of a UDP datagram over IPv4.
const most = 65507

// rogue is a PBX that misbehaves towards agents. The phone always gets a good answer.
type rogue struct {
	node string // its Server header
	conn *net.UDPConn
	alt  *net.UDPConn // another port of the same host
}

// lies are the bad answers by name, each made from a good answer. The datagram itself is
// right, and comes from the right port.
var lies = map[string]func(good []byte) []byte{
	"no To":          func(good []byte) []byte { return without(good, "To") },
	"no From":        func(good []byte) []byte { return without(good, "From") },
	"no CSeq":        func(good []byte) []byte { return without(good, "CSeq") },
	"wrong Call-ID":  func(good []byte) []byte { return replace(good, "Call-ID", "somebody-elses") },
	"wrong CSeq":     func(good []byte) []byte { return replace(good, "CSeq", "2 OPTIONS") },
	"wrong method":   func(good []byte) []byte { return replace(good, "CSeq", "1 INVITE") },
	"no branch":      func(good []byte) []byte { return without(good, "Via") },
	"another branch": func(good []byte) []byte { return bytes.Replace(good, []byte("z9hG4bK"), []byte("z9hG4bKx"), 1) },
	"64 KB": func(good []byte) []byte {
		head := bytes.TrimSuffix(good, []byte("\r\n"))
		return append(append(bytes.Clone(head), "X-Fill: "+strings.Repeat("x", most-len(head)-12)...), "\r\n\r\n"...)
	},
	"many parameters": func(good []byte) []byte {
		return replace(good, "Contact", "<sip:x>"+strings.Repeat(";a=b", 15_000))
	},
	"status 999": func(good []byte) []byte { return bytes.Replace(good, []byte(" 200 "), []byte(" 999 "), 1) },
	"status huge": func(good []byte) []byte {
		return bytes.Replace(good, []byte(" 200 "), []byte(" 200000000000000000000 "), 1)
	},
	"half a message": func(good []byte) []byte { return good[:len(good)/2] },
	"a request": func(good []byte) []byte {
		return bytes.Replace(good, []byte("SIP/2.0 200 OK"), []byte("OPTIONS sip:x SIP/2.0"), 1)
	},
	"first line": func([]byte) []byte { return []byte("SIP/2.0 200 OK\r\n") },
	"nothing":    func([]byte) []byte { return nil },
	"binary": func([]byte) []byte {
		b := make([]byte, 1400)
		_, _ = rand.Read(b)
		return b
	},
	"NUL bytes": func(good []byte) []byte { return bytes.ReplaceAll(good, []byte("\r\n"), []byte("\x00\r\n\x00")) },
}

func without(message []byte, header string) []byte {
	var out []byte
	for line := range bytes.Lines(message) {
		if !bytes.HasPrefix(line, []byte(header+":")) {
			out = append(out, line...)
		}
	}
	return out
}

// replace replaces a header by one with this value.
func replace(message []byte, header, value string) []byte {
	head, rest, _ := bytes.Cut(without(message, header), []byte("\r\n"))
	return fmt.Appendf(nil, "%s\r\n%s: %s\r\n%s", head, header, value, rest)
}

// serveRogue runs a PBX that lies to agents. args are its name, a file that says how to
// lie, the node's address, where it lies, and the VIPs, where it answers well. It reads
// the file at each question: the name of a lie, "flood" or "other port". A good answer
// follows the lie, unless "only " stands before the name.
func serveRogue(args []string) error {
	r := rogue{node: args[0]}
	var err error
	if r.alt, err = listenAt(args[2] + ":5062"); err != nil {
		return err
	}
	if r.conn, err = listenAt(args[2] + ":5060"); err != nil {
		return err
	}
	for _, vip := range args[3:] {
		conn, err := listenAt(vip + ":5060")
		if err != nil {
			return err
		}
		go func() { _ = serve(conn, args[0], func([]byte, netip.AddrPort) bool { return true }) }()
	}
	return serve(r.conn, r.node, func(good []byte, to netip.AddrPort) bool {
		how := behaviour(args[1])
		if how == "" {
			return true
		}
		how, only := strings.CutPrefix(how, "only ")
		r.lie(how, good, to)
		return !only
	})
}

// listenAt binds to an address, even if this host does not have it yet.
func listenAt(addr string) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		_ = c.Control(func(fd uintptr) {
			// So that a moment without CPU time loses no question.
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
		})
		return err
	}}
	conn, err := lc.ListenPacket(context.Background(), "udp4", addr)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// serve sends the good answer to each question, unless first returns false.
func serve(conn *net.UDPConn, node string, first func(good []byte, to netip.AddrPort) bool) error {
	request := make([]byte, 65536)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(request)
		if err != nil {
			return err
		}
		if good, ok := lab.Answer(nil, request[:n], from, node); ok && first(good, from) {
			_, _ = conn.WriteToUDPAddrPort(good, from)
		}
	}
}

func (r rogue) lie(how string, good []byte, to netip.AddrPort) {
	switch how {
	case "other port":
		_, _ = r.alt.WriteToUDPAddrPort(good, to)
	case "flood":
		// In a goroutine of its own, so that the phone's questions do not wait.
		go func() {
			for range floodSize {
				_, _ = r.conn.WriteToUDPAddrPort(good, to)
			}
		}()
	default:
		lie, known := lies[how]
		if !known {
			fmt.Fprintln(os.Stderr, "no such lie:", how)
			os.Exit(1)
		}
		_, _ = r.conn.WriteToUDPAddrPort(lie(good), to)
	}
}
