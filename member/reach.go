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

// Reached is what Reach found out about a peer's agent.
type Reached struct {
	Heard   bool // a packet came from it before any was sent to it
	Foreign bool // a packet came that no key of ours opens, or that is for another cluster
	Answers bool // it answered
}

const (
	// reachListen is long enough: an agent sends to every configured peer at each
	// heartbeat, whether or not it hears that peer.
	reachListen = time.Second
	reachRepeat = 200 * time.Millisecond
	// reachPing is memberlist's pingMsg (its net.go). Any agent answers it, and it
	// changes nothing there. A message of our own would announce an instance.
	reachPing = 0
	// reachSeq is encoded by memberlist in five bytes. Its own numbers never get that
	// high.
	reachSeq = 0xD0C70000
)

// Reach takes the place of this node's agent, which must not be running. For a second it
// listens at the agent's address and port for what the peers send unasked. Then it asks
// each of them until ctx ends or all have answered. It uses Cluster, Keys, Port, Self,
// SelfAddress and Peers of cfg. The error comes from the socket or from cfg; if an agent
// is running, it is syscall.EADDRINUSE.
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

// ask sends a ping to each peer. A send that fails counts as no answer.
func (r *reach) ask() {
	for i, p := range r.cfg.Peers {
		b := r.sealer.begin(nil)
		b[len(b)-1] = reachPing
		b = appendPing(b, uint32(reachSeq+i), string(p.Name))
		_, _ = r.conn.WriteToUDPAddrPort(r.sealer.seal(b), netip.AddrPortFrom(p.Address, r.cfg.Port))
	}
}

// appendPing appends memberlist's ping in msgpack: a map of SeqNo and Node. A name has at
// most 63 bytes; str 8 takes 255.
func appendPing(b []byte, seq uint32, node string) []byte {
	b = appendSeq(append(b, 0x82), seq)
	b = append(append(b, 0xa4), "Node"...)
	return append(append(b, 0xd9, byte(len(node))), node...)
}

// appendSeq appends SeqNo and its number, as in a ping and its answer.
func appendSeq(b []byte, seq uint32) []byte {
	b = append(append(b, 0xa5), "SeqNo"...)
	return binary.BigEndian.AppendUint32(append(b, 0xce), seq)
}

// listen reads until long has passed or ctx ends; with asked also until all have
// answered.
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
		// memberlist puts a checksum and gossip around the answer.
		is.Answers = is.Answers || err == nil && bytes.Contains(text, appendSeq(nil, uint32(reachSeq+i)))
		r.found[p.Name] = is
	}
}
