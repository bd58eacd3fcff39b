package peers

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sipalive/test/bench/page"
	"sipalive/test/shipped"
)

const (
	patience = 40 * time.Second      // for what must come
	maxStall = 5 * time.Millisecond  // of the observer
	before   = 50 * time.Millisecond // watched before each fault
	after    = 50 * time.Millisecond // watched after the address has moved
	atRest   = 15 * time.Second      // length of the cost measurement
	minute   = time.Minute           // of packet loss
	spells   = 6                     // parts of that minute
	root     = "../../.."
)

var (
	tools    = flag.String("peers.tools", strings.Join(page.Tools, ","), "which tools")
	settings = flag.String("peers.settings", strings.Join(page.Settings, ","), "which settings")
	faults   = flag.String("peers.faults", "", "which faults, of the page's names, or steady; default all")
	runs     = flag.Int("peers.runs", 10, "good runs of each fault")
	out      = flag.String("peers.out", root, "the project whose docs are written")
)

var binary string

func TestMain(m *testing.M) {
	os.Exit(shipped.Main(m, "peers", &binary, "-trimpath", "-ldflags", "-s -w"))
}

// wanted reports whether a flag's list contains a name. An empty list contains every
// name.
func wanted(list, name string) bool {
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}

// interval returns the heartbeat or advert interval of a setting; 0 is the tool's
// default.
func interval(setting string) time.Duration {
	d, err := time.ParseDuration(setting)
	if err != nil {
		return 0
	}
	return d
}
