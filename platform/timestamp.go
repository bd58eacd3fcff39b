package platform

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

// ClockRate is how much faster another machine's clock runs than this one's.
type ClockRate struct {
	PPM    float64 // parts per million
	Within float64 // the possible error
}

const (
	stampsPerBurst = 48
	// stampPace is no whole fraction of the millisecond in which timestamps count, so
	// that the moments of a burst spread over the whole millisecond.
	stampPace    = 1270 * time.Microsecond
	stampTimeout = 200 * time.Millisecond
	stampMisses  = 5
	dayMillis    = 24 * 60 * 60 * 1000
	oddStamp     = 1 << 31 // set if not in milliseconds since midnight UT (RFC 792)
)

// errNoStamp: Linux answers ICMP timestamps unless a firewall drops them.
var errNoStamp = errors.New("it answers no ICMP timestamp")

// MeasureClock asks a machine for its clock twice, `over` apart, and compares the time
// that passed there with CLOCK_BOOTTIME here. Over IPv4 it asks for the time of day by
// ICMP timestamps (RFC 792); if that clock is set meanwhile, the rate is large. ICMPv6
// has no timestamps, so over IPv6 it uses TCP timestamps from a port that is open there,
// see tcpStamps. It needs CAP_NET_RAW.
func MeasureClock(ctx context.Context, from netip.Addr, of netip.AddrPort, over time.Duration) (ClockRate, error) {
	c, err := openClock(from, of)
	if err != nil {
		return ClockRate{}, fmt.Errorf("ask %s for its time: %w (needs CAP_NET_RAW)", of.Addr(), err)
	}
	defer c.close()
	defer context.AfterFunc(ctx, c.close)()
	first, err := burst(c)
	if err != nil {
		return ClockRate{}, err
	}
	select {
	case <-time.After(over):
	case <-ctx.Done():
		return ClockRate{}, context.Cause(ctx)
	}
	second, err := burst(c)
	if err != nil {
		return ClockRate{}, err
	}
	r := rate(first, second)
	if of.Addr().Is6() && math.Abs(r.PPM) > oddRate {
		return ClockRate{}, errOddTCPStamp
	}
	return r, nil
}

// remoteClock is another machine's clock, read by questions over the network.
type remoteClock interface {
	// ask asks once. At some moment between sent and got, on the boot clock here, the
	// other clock showed millis. If no answer comes within stampTimeout, the error is
	// os.ErrDeadlineExceeded.
	ask() (sent, got, millis int64, err error)
	silent() error // the error that says what silence means
	close()        // may be called more than once
}

func openClock(from netip.Addr, of netip.AddrPort) (remoteClock, error) {
	if of.Addr().Is6() {
		return openTCPStamps(from, of)
	}
	conn, err := net.ListenIP("ip4:icmp", &net.IPAddr{IP: from.AsSlice()})
	if err != nil {
		return nil, err
	}
	return &stamps{conn: conn, of: of.Addr(), id: int(BootNow() & math.MaxUint16)}, nil
}

// bounds are the limits of how far the other clock is ahead of this one, in ns, and when
// that was measured here.
type bounds struct {
	low, high int64
	at        int64
	some      bool
}

// add takes one answer. At some moment between sent and got the other clock showed
// millis, and may have shown it for up to a millisecond already.
func (b *bounds) add(sent, got, millis int64) {
	const ms = int64(time.Millisecond)
	low, high := millis*ms-got, (millis+1)*ms-sent
	if !b.some {
		*b = bounds{low: low, high: high, some: true}
	}
	b.low, b.high, b.at = max(b.low, low), min(b.high, high), got
}

func (b bounds) middle() float64 { return float64(b.low+b.high) / 2 }

// half returns half the distance of the limits. high is below low if the clock was set in
// the middle of a burst.
func (b bounds) half() float64 { return math.Abs(float64(b.high-b.low)) / 2 }

func rate(a, b bounds) ClockRate {
	over := float64(b.at - a.at)
	return ClockRate{PPM: (b.middle() - a.middle()) / over * 1e6, Within: (a.half() + b.half()) / over * 1e6}
}

type stamps struct {
	conn    *net.IPConn
	of      netip.Addr
	id, seq int
	begin   int64 // the first timestamp: midnight may come
	started bool
}

func (s *stamps) silent() error { return errNoStamp }

func (s *stamps) close() { s.conn.Close() }

func burst(c remoteClock) (b bounds, err error) {
	misses := 0
	for range stampsPerBurst {
		sent, got, millis, err := c.ask()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if misses++; misses == stampMisses {
				return b, c.silent()
			}
			continue
		case err != nil:
			return b, err
		}
		b.add(sent, got, millis)
		time.Sleep(stampPace)
	}
	return b, nil
}

func (s *stamps) ask() (sent, got, millis int64, err error) {
	s.seq = (s.seq + 1) & math.MaxUint16
	body := make([]byte, 16) // identifier, sequence, and three timestamps
	binary.BigEndian.PutUint16(body, uint16(s.id))
	binary.BigEndian.PutUint16(body[2:], uint16(s.seq))
	request, err := (&icmp.Message{Type: ipv4.ICMPTypeTimestamp, Body: &icmp.RawBody{Data: body}}).Marshal(nil)
	if err != nil {
		return 0, 0, 0, err
	}
	s.conn.SetReadDeadline(time.Now().Add(stampTimeout))
	sent = BootNow()
	if _, err := s.conn.WriteToIP(request, &net.IPAddr{IP: s.of.AsSlice()}); err != nil {
		return 0, 0, 0, err
	}
	answer := make([]byte, 512)
	for {
		n, from, err := s.conn.ReadFromIP(answer)
		if err != nil {
			return 0, 0, 0, err
		}
		got = BootNow()
		source, _ := netip.AddrFromSlice(from.IP)
		if stamp, ours := s.read(answer[:n], source.Unmap()); ours {
			if stamp&oddStamp != 0 {
				return 0, 0, 0, errors.New("its ICMP timestamps are not in milliseconds since midnight")
			}
			return sent, got, s.unwrap(int64(stamp)), nil
		}
	}
}

// read returns the receive timestamp of the answer to the newest question. The answer's
// fields: type, code, checksum, identifier, sequence, then originate, receive and
// transmit.
func (s *stamps) read(b []byte, from netip.Addr) (stamp uint32, ours bool) {
	if len(b) < 20 || b[0] != byte(ipv4.ICMPTypeTimestampReply) || from != s.of {
		return 0, false
	}
	if int(binary.BigEndian.Uint16(b[4:])) != s.id || int(binary.BigEndian.Uint16(b[6:])) != s.seq {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[12:]), true
}

// unwrap makes timestamps go on counting past midnight.
func (s *stamps) unwrap(millis int64) int64 {
	if !s.started {
		s.begin, s.started = millis, true
	}
	if millis < s.begin-dayMillis/2 {
		millis += dayMillis
	}
	return millis
}
