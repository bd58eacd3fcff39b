package hooks

import (
	"strings"
	"testing"
	"time"
)

func TestActionCheck(t *testing.T) {
	exec := []string{"/bin/true"}
	tests := []struct {
		action Action
		want   string // "" is no error
	}{
		{Action{On: Acquire, Exec: exec}, ""},
		{Action{On: Prepare, FreeSWITCH: []string{"status"}, Timeout: time.Second}, ""},
		{Action{On: Release, Memcached: []string{"127.0.0.1:11211", "[2001:db8::1]:11211", "cache.example.net:11211"}}, ""},
		{Action{Exec: exec}, `on = "": not a phase (use prepare, acquire, release, retire, failed, unreachable or flush)`},
		{Action{On: "acquired", Exec: exec}, `on = "acquired": not a phase (use prepare, acquire, release, retire, failed, unreachable or flush)`},
		{Action{On: Retire, Exec: exec, Timeout: -1}, `timeout = "-1ns": must not be negative`},
		{Action{On: Retire}, "an action has exactly one of exec, freeswitch and memcached, this one has 0"},
		{Action{On: Retire, Exec: exec, Memcached: []string{"a:1"}}, "an action has exactly one of exec, freeswitch and memcached, this one has 2"},
		{Action{On: Acquire, Exec: []string{"true"}}, "exec true: not an absolute path (the agent searches no PATH)"},
		{Action{On: Acquire, Exec: []string{""}}, "exec : not an absolute path (the agent searches no PATH)"},
		{Action{On: Acquire, FreeSWITCH: []string{"status", ""}}, "freeswitch: an empty command"},
		{Action{On: Acquire, Memcached: []string{"127.0.0.1"}}, "memcached 127.0.0.1: not an address with a port (use host:port, e.g. 127.0.0.1:11211)"},
		{Action{On: Acquire, Memcached: []string{":11211"}}, "memcached :11211: not a host (use host:port, e.g. 127.0.0.1:11211)"},
		{Action{On: Acquire, Memcached: []string{"/run/memcached.sock:1"}}, "memcached /run/memcached.sock:1: not a host (use host:port, e.g. 127.0.0.1:11211)"},
		{Action{On: Acquire, Memcached: []string{"a:0"}}, "memcached a:0: not a port from 1 to 65535 (use host:port, e.g. 127.0.0.1:11211)"},
		{Action{On: Acquire, Memcached: []string{"a:65536"}}, "memcached a:65536: not a port from 1 to 65535 (use host:port, e.g. 127.0.0.1:11211)"},
	}
	for _, tt := range tests {
		got := ""
		if err := tt.action.Check(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%+v:\ngot  %s\nwant %s", tt.action, got, tt.want)
		}
	}
}

func TestOneLine(t *testing.T) {
	tests := map[string]string{
		"plain":                        "plain",
		"a\nb\r\n\tc":                  "a b c",
		"\x1b[31mred\x00":              "[31mred",
		"ä\xff":                        "ä?",
		strings.Repeat("x", lineMax+1): strings.Repeat("x", lineMax) + "...",
		strings.Repeat("ä", lineMax):   strings.Repeat("ä", lineMax/2) + "...",
	}
	for in, want := range tests {
		if got := oneLine(in); got != want {
			t.Errorf("oneLine(%.20q) = %q, want %q", in, got, want)
		}
	}
}
