package member

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"sipalive/elect"
)

// Reached is what became of a question to a peer's agent.
type Reached struct {
	Heard   bool // a packet of it came by itself, before any was sent to it
	Foreign bool // what came is sealed with no key of ours, or for another cluster
	Answers bool // it answered
}

const (
	// reachListen: an agent sends to every configured peer at each heartbeat,
	// whether or not it hears it.
	reachListen = time.Second
	reachRepeat = 200 * time.Millisecond
	// reachPing is memberlist's pingMsg (its net.go): any agent answers it, and it
	// changes nothing there. A message of ours would tell of an instance.
	reachPing = 0
	// reachSeq is what memberlist encodes in five bytes; it never comes to it.
	reachSeq = 0xD0C70000
)

// Reach takes the place of this node's agent, which must not run: it listens for a
// second at its address and port for what the peers send by themselves, then asks
// each of them until ctx ends or all have answered. Of cfg it needs Cluster, Keys,
// Port, Self, SelfAddress and Peers. The error, of the socket or of cfg, is
// syscall.EADDRINUSE where an agent runs.
func Reach(ctx context.Context, cfg Config) (map[elect.Node]Reached, error) {
	s, err := newSealer(cfg.Cluster, cfg.Keys)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(cfg.SelfAddress, cfg.Port)))
	if err != nil {
		return nil, fmt.Errorf("take the agent's place: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	r := reach{cfg: cfg, sealer: s, conn: conn, found: map[elect.Node]Reached{}}
	if err := r.listen(ctx, reachListen, false); err != nil {
		return nil, err
	}
	for ctx.Err() == nil && !r.complete() {
		r.ask()
		if err := r.listen(ctx, reachRepeat, true); err != nil {
			return nil, err
		}
	}
	return r.found, nil
}

type reach struct {
	cfg    Config
	sealer *sealer
	conn   *net.UDPConn
	found  map[elect.Node]Reached
}

func (r *reach) complete() bool {
	for _, p := range r.cfg.Peers {
		if !r.found[p.Name].Answers {
			return false
		}
	}
	return true
}

// ask sends each peer a ping; what the kernel refuses is no answer.
func (r *reach) ask() {
	for i, p := range r.cfg.Peers {
		b := r.sealer.begin(nil)
		b[len(b)-1] = reachPing
		b = appendPing(b, uint32(reachSeq+i), string(p.Name))
		_, _ = r.conn.WriteToUDPAddrPort(r.sealer.seal(b), netip.AddrPortFrom(p.Address, r.cfg.Port))
	}
}

// appendPing is memberlist's ping in msgpack: a map of SeqNo and Node. A name has at
// most 63 bytes; str 8 takes 255.
func appendPing(b []byte, seq uint32, node string) []byte {
	b = appendSeq(append(b, 0x82), seq)
	b = append(append(b, 0xa4), "Node"...)
	return append(append(b, 0xd9, byte(len(node))), node...)
}

// appendSeq is SeqNo with its number, as a ping and its answer have it.
func appendSeq(b []byte, seq uint32) []byte {
	b = append(append(b, 0xa5), "SeqNo"...)
	return binary.BigEndian.AppendUint32(append(b, 0xce), seq)
}

// listen reads for so long, or until ctx ends or, asked, all have answered.
func (r *reach) listen(ctx context.Context, long time.Duration, asked bool) error {
	r.conn.SetReadDeadline(time.Now().Add(long))
	buf, plain := make([]byte, 1<<16), make([]byte, 0, 1<<16)
	for ctx.Err() == nil && !(asked && r.complete()) {
		n, from, err := r.conn.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("listen at %s: %w", r.conn.LocalAddr(), err)
		}
		r.datagram(buf[:n], plain, from.Addr().Unmap(), asked)
	}
	return nil
}

func (r *reach) datagram(b, plain []byte, from netip.Addr, asked bool) {
	for i, p := range r.cfg.Peers {
		if p.Address != from {
			continue
		}
		is := r.found[p.Name]
		text, err := r.sealer.open(plain, b)
		is.Foreign = is.Foreign || err == errWrongKey || err == errWrongLabel
		is.Heard = is.Heard || err == nil && !asked
		// Around it memberlist puts a checksum, and what it gossips.
		is.Answers = is.Answers || err == nil && bytes.Contains(text, appendSeq(nil, uint32(reachSeq+i)))
		r.found[p.Name] = is
	}
}
