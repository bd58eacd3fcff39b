package fence

import (
	"fmt"
	"os"
	"testing"
	"time"

	"sipalive/platform"
)

// TestMain also serves as an agent, in a process of its own.
func TestMain(m *testing.M) {
	record := os.Getenv("FENCE_RECORD")
	if record == "" {
		os.Exit(m.Run())
	}
	s := site{record: record, clsact: os.Getenv("FENCE_CLSACT") != ""}
	o := s.options(platform.BootNow() + int64(agentLease))
	if mode := os.Getenv("FENCE_MODE"); mode != "" {
		o.Mode = Mode(mode)
	}
	f, err := Open(o)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if os.Getenv("FENCE_ONCE") != "" {
		fmt.Println(f.Kind(), f.Explain())
		if err := f.Close(true); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	renew(f)
}

const agentLease = 300 * time.Millisecond

// renew renews every 20 ms and prints each deadline.
func renew(f *Fence) {
	for {
		until := platform.BootNow() + int64(agentLease)
		if err := f.Set(vip, until); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("until", until)
		time.Sleep(20 * time.Millisecond)
	}
}
