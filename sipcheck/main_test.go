package sipcheck

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// childAddress, if set in the environment, makes this test binary a SIP server at that
// address: a separate process that can be killed with -9.
const childAddress = "SIPCHECK_TEST_SERVE"

func TestMain(m *testing.M) {
	if address := os.Getenv(childAddress); address != "" {
		serveUntilKilled(address)
	}
	goleak.VerifyTestMain(m)
}

func serveUntilKilled(address string) {
	if over, is := strings.CutPrefix(address, "tcp:"); is {
		serveTCPUntilKilled(over)
	}
	at, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(conn.LocalAddr().(*net.UDPAddr).Port)
	go endWithTheTest()
	buf := make([]byte, 65535)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			os.Exit(1)
		}
		conn.WriteToUDPAddrPort(reply(request(buf[:n]), "200 OK"), from)
	}
}

// endWithTheTest ends this process when the test's process ends, for whatever reason.
func endWithTheTest() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(1)
}

func serveTCPUntilKilled(address string) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(ln.Addr().(*net.TCPAddr).Port)
	go endWithTheTest()
	for {
		conn, err := ln.Accept()
		if err != nil {
			os.Exit(1)
		}
		go func() {
			r := newMessageReader(conn)
			for m, err := r.next(); err == nil; m, err = r.next() {
				conn.Write(reply(request(m), "200 OK"))
			}
			conn.Close()
		}()
	}
}
