package sipcheck

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
)

// branchMagic starts every branch of an RFC 3261 transaction (§8.1.1.7).
const branchMagic = "z9hG4bK"

// ids tell one probe's answers from all others. Each has 64 random bits, so nobody off
// the path can forge an answer, and no answer fits two probes.
type ids struct {
	branch string
	callID string
	tag    string
}

// newIDs makes all three in one allocation.
func newIDs(r *rand.Rand) ids {
	b := make([]byte, 0, len(branchMagic)+3*16)
	b = append(b, branchMagic...)
	b = appendHex(b, r.Uint64())
	b = appendHex(b, r.Uint64())
	b = appendHex(b, r.Uint64())
	s, cut := string(b), len(branchMagic)+16
	return ids{branch: s[:cut], callID: s[cut : cut+16], tag: s[cut+16:]}
}

func appendHex(b []byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[v>>shift&15])
	}
	return b
}

// probeCSeq is the sequence number of every probe: each has its own Call-ID.
const probeCSeq = 1

// appendOptions appends the OPTIONS message of design §6 to b. The request URI has no
// user part: Kamailio's default answers 200 only then, and Asterisk answers 404 to an
// unknown user. From has a tag, To has none, and there is no Require header.
func appendOptions(b []byte, id ids, by Transport, local, remote netip.AddrPort, userAgent string) []byte {
	b = append(b, "OPTIONS "...)
	b = appendURI(b, by, remote)
	b = append(b, " SIP/2.0\r\nVia: SIP/2.0/"...)
	b = append(b, by.via()...)
	b = append(b, ' ')
	b = appendHostPort(b, local)
	b = append(b, ";rport;branch="...)
	b = append(b, id.branch...)
	b = append(b, "\r\nMax-Forwards: 70\r\nFrom: <sip:ping@"...)
	b = appendHost(b, local.Addr())
	b = append(b, ">;tag="...)
	b = append(b, id.tag...)
	b = append(b, "\r\nTo: <sip:"...)
	b = appendHostPort(b, remote)
	b = append(b, ">\r\nCall-ID: "...)
	b = append(b, id.callID...)
	b = append(b, "\r\nCSeq: "...)
	b = strconv.AppendUint(b, probeCSeq, 10)
	b = append(b, " OPTIONS\r\nContact: <"...)
	b = appendURI(b, by, local)
	b = append(b, ">\r\nUser-Agent: "...)
	b = appendPrintable(b, userAgent)
	return append(b, "\r\nAccept: application/sdp\r\nContent-Length: 0\r\n\r\n"...)
}

// appendURI appends sip:HOST:PORT, with the transport if it is not UDP. TLS is written as
// servers write it themselves (transport=tls). sips: would also ask for a secure path
// beyond the server (RFC 3261 §26.2.2).
func appendURI(b []byte, by Transport, a netip.AddrPort) []byte {
	b = append(b, "sip:"...)
	b = appendHostPort(b, a)
	if by != UDP {
		b = append(b, ";transport="...)
		b = append(b, by.String()...)
	}
	return b
}

func appendHostPort(b []byte, a netip.AddrPort) []byte {
	b = appendHost(b, a.Addr())
	b = append(b, ':')
	return strconv.AppendUint(b, uint64(a.Port()), 10)
}

// appendHost leaves out the zone: RFC 3261's IPv6reference has none, and another host
// cannot use it.
func appendHost(b []byte, a netip.Addr) []byte {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.AppendTo(b)
	}
	b = append(b, '[')
	return append(a.AppendTo(b), ']')
}

// appendPrintable drops control bytes, so that configured text cannot end its header.
func appendPrintable(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c != 0x7f {
			b = append(b, c)
		}
	}
	return b
}
