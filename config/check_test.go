package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func withTiming(heartbeat, lease time.Duration) error {
	_, err := Parse("f.toml", fmt.Appendf(nil, "%s[timing]\nheartbeat = %q\nlease = %q\n", minimal, heartbeat, lease))
	return err
}

// The lease that a message suggests is accepted; one millisecond less is not.
func TestShortestLease(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		heartbeat := time.Duration(rapid.Int64Range(int64(minInterval), int64(20*time.Minute)).Draw(t, "heartbeat"))
		lease := shortestLease(heartbeat)
		if err := withTiming(heartbeat, lease); err != nil {
			t.Fatalf("shortest lease refused: %v", err)
		}
		err := withTiming(heartbeat, lease-time.Millisecond)
		if want := fmt.Sprintf("lease = %q would do", spell(lease)); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Fatalf("a millisecond less: %v, want %s", err, want)
		}
	})
}

// The timing of the loss benchmark must be allowed.
func TestQuickTiming(t *testing.T) {
	if err := withTiming(100*time.Millisecond, 250*time.Millisecond); err != nil {
		t.Error(err)
	}
}

func TestMargin(t *testing.T) {
	for lease, want := range map[time.Duration]time.Duration{
		30 * time.Millisecond:  10 * time.Millisecond,
		200 * time.Millisecond: 10 * time.Millisecond,
		time.Second:            50 * time.Millisecond,
		3 * time.Second:        150 * time.Millisecond,
	} {
		if got := (Timing{Lease: lease}).Margin(); got != want {
			t.Errorf("margin of %v is %v, want %v", lease, got, want)
		}
	}
}

// The largest cluster within the limits is accepted.
func TestLargestCluster(t *testing.T) {
	var b strings.Builder
	b.WriteString("cluster = \"c\"\nkey_file = \"/k\"\n")
	for i := range maxNodes {
		fmt.Fprintf(&b, "[[node]]\nname = \"n%d\"\naddress = \"127.0.0.%d\"\n", i, i+1)
	}
	for i := range maxLeases - 1 {
		fmt.Fprintf(&b, "[[vip]]\nname = \"v%d\"\naddress = \"198.18.1.%d\"\nprefer = [\"n%d\"]\n", i, i, i%maxNodes)
	}
	b.WriteString("[[role]]\nname = \"r\"\n")
	if c := mustParse(t, []byte(b.String())); len(c.Nodes) != maxNodes || len(c.VIPs)+len(c.Roles) != maxLeases {
		t.Errorf("%d nodes, %d vips", len(c.Nodes), len(c.VIPs))
	}
}

// Files that are allowed on purpose although similar ones are refused.
func TestAllowed(t *testing.T) {
	witness := "[[node]]\nname = \"db\"\naddress = \"127.0.0.2\"\nholder = false\n"
	for name, text := range map[string]string{
		"a witness preferred for a role":      witness + "[[role]]\nname = \"cdr\"\nprefer = [\"db\"]\n",
		"witnesses only, no VIP":              "holder = false\n",
		"a holder without a vote":             witness + "[[node]]\nname = \"n\"\naddress = \"127.0.0.3\"\nvoter = false\n",
		"a node and a VIP of one name":        "[[vip]]\nname = \"pbx1\"\naddress = \"192.0.2.1\"\n",
		"no delays":                           "[timing]\nsettle = \"0s\"\nhold_down = \"0ms\"\nfailback_after = \"0s\"\nexclude = \"0s\"\n",
		"root only":                           "[control]\ngroup = \"\"\n",
		"a slow probe where nothing verifies": "[sip]\nverify = false\ntimeout = \"11s\"\n",
		"a long name":                         "[[role]]\nname = \"" + strings.Repeat("r", 63) + "\"\n",
		"an IPv6 server":                      "[freeswitch]\naddress = \"[::1]:8021\"\n",
		"a tab in an argument":                "[[role]]\nname = \"r\"\n[[role.action]]\non = \"retire\"\nexec = [\"/bin/echo\", \"a\\tb\\n\", \"ü\"]\n",
		"inline tables":                       "[[vip]]\nname = \"v\"\naddress = \"192.0.2.1\"\naction = [{ on = \"prepare\", exec = [\"/x\"] }]\n",
	} {
		if _, err := Parse("f.toml", []byte(minimal+text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// IPv6 servers and listeners are kept as written. Without brackets they have no port.
func TestServersByIPv6(t *testing.T) {
	c := mustParse(t, []byte(minimal+`[control]
listen = "[::1]:9480"
[mail]
server = "[2001:db8::25]:587"
[[role]]
name = "r"
[[role.action]]
on = "acquire"
memcached = ["[::1]:11211", "[2001:db8::5]:11212"]
`))
	if c.Control.Listen != netip.MustParseAddrPort("[::1]:9480") {
		t.Errorf("listen %v", c.Control.Listen)
	}
	if c.Mail.Server != "[2001:db8::25]:587" {
		t.Errorf("mail server %q", c.Mail.Server)
	}
	if got := c.Roles[0].Actions[0].Memcached; !slices.Equal(got, []string{"[::1]:11211", "[2001:db8::5]:11212"}) {
		t.Errorf("memcached %q", got)
	}
	for text, want := range map[string]string{
		"[control]\nlisten = \"::1:9480\"\n":                                                       "listen = \"::1:9480\"",
		"[control]\nlisten = \"[2001:db8::1]:9480\"\n":                                             "public = true",
		"[mail]\nserver = \"2001:db8::25\"\n":                                                      "server = \"2001:db8::25\"",
		"[[role]]\nname = \"r\"\n[[role.action]]\non = \"acquire\"\nmemcached = [\"::1:11211\"]\n": "\"::1:11211\"",
	} {
		if _, err := Parse("f.toml", []byte(minimal+text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
