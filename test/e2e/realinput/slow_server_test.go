package realinput

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"sipalive/test/lab"
)

// How long serveSlow takes for an answer: usually, and in a brown-out, when it takes ten
// times as long, but less than the default timeout.
const (
	usualAnswer = 25 * time.Millisecond
	slowAnswer  = 10 * usualAnswer
)

// serveSlow runs a slow SIP server. From SIGUSR1 until SIGUSR2 it is ten times slower.
// args are its name and its addresses.
func serveSlow(args []string) error {
	var takes atomic.Int64
	takes.Store(int64(usualAnswer))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range signals {
			if s == syscall.SIGUSR1 {
				takes.Store(int64(slowAnswer))
			} else {
				takes.Store(int64(usualAnswer))
			}
		}
	}()
	failed := make(chan error)
	for _, address := range args[1:] {
		at, err := netip.ParseAddr(address)
		if err != nil {
			return err
		}
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 5060)))
		if err != nil {
			return err
		}
		go func() { failed <- answerLate(conn, args[0], &takes) }()
	}
	return <-failed
}

func answerLate(conn *net.UDPConn, name string, takes *atomic.Int64) error {
	for request := make([]byte, 65535); ; {
		n, from, err := conn.ReadFromUDPAddrPort(request)
		if err != nil {
			return fmt.Errorf("serve SIP: %w", err)
		}
		if answer, ok := lab.Answer(nil, request[:n], from, name); ok {
			time.AfterFunc(time.Duration(takes.Load()), func() { _, _ = conn.WriteToUDPAddrPort(answer, from) })
		}
	}
}
