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
		want   string // "": no error
	}{
		{Action{On: Acquire, Exec: exec}, ""},
		{Action{On: Prepare, FreeSWITCH: []string{"status"}, Timeout: time.Second}, ""},
		{Action{On: Release, Memcached: []string{"127.0.0.1:11211", "[2001:db8::1]:11211", "cache.example.net:11211"}}, ""},
		{Action{Exec: exec}, `on = "": not a phase (use prepare, acquire, release, retire, failed, unreachable or flush)`},
		{Action{On: "acquired", Exec: exec}, `on = "acquired": not a phase (use prepare, acquire, release, retire, failed, unreachable or flush)`},
		{Action{On: Retire, Exec: exec, Timeout: -1}, `timeout = "-1ns": must not be negative`},
		{Action{On: Retire}, "an action has exactly one of exec, freeswitch, memcached, http and mail, this one has 0"},
		{Action{On: Retire, Exec: exec, Memcached: []string{"a:1"}}, "an action has exactly one of exec, freeswitch, memcached, http and mail, this one has 2"},
		{Action{On: Acquire, HTTP: "example.net"}, "http example.net: not a URL (use https://host/path)"},
		{Action{On: Acquire, HTTP: "https://me:secret@example.net/"}, "http https://me:xxxxx@example.net/: no password in a URL (the body is signed with secret_file)"},
		{Action{On: Acquire, Exec: exec, SecretFile: "/s"}, "secret_file: only an http action has one"},
		{Action{On: Acquire, Memcached: []string{"a:1"}, User: "nobody"}, "user: only an exec action has one"},
		{Action{On: Notice, Mail: []string{"noc"}}, "mail noc: not an address, e.g. noc@example.net"},
		{Action{On: Retire, Exec: exec, GiveBack: true}, `on_failure = "release": nothing to give back on retire (only on prepare and acquire)`},
		{Action{On: Retire, Exec: exec, When: []Cause{"fire"}}, `when = "fire": not a cause (use move, crash, sip or boot)`},
		{Action{On: Retire, Exec: exec, Retries: -1}, "retries = -1: must not be negative"},
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
