package sipcheck

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childAddress in the environment makes this test binary a SIP server there: a
// process of its own that can be killed with -9.
const childAddress = "SIPCHECK_TEST_SERVE"

func TestMain(m *testing.M) {
	if address := os.Getenv(childAddress); address != "" {
		serveUntilKilled(address)
	}
	goleak.VerifyTestMain(m)
}

func serveUntilKilled(address string) {
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
	go func() { // ends with the test's process, however that ends
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	buf := make([]byte, 65535)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			os.Exit(1)
		}
		conn.WriteToUDPAddrPort(reply(request(buf[:n]), "200 OK"), from)
	}
}
