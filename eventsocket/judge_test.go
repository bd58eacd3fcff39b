package eventsocket

import (
	"bufio"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sipalive/eventsocket/recorded"
)

// TestJudgeRecordings says for every API answer ever recorded whether the command
// failed, and by which line.
func TestJudgeRecordings(t *testing.T) {
	verdicts := map[string][]string{
		"auth-ok-status.txt":                {"ok"},
		"auth-wrong-password.txt":           nil,
		"bad-command.txt":                   {"-ERR nosuchcommand Command not found!", "Unknown Command [nosuch]"},
		"bgapi.txt":                         nil,
		"calls-count.txt":                   {"ok", "ok", "ok"},
		"exit.txt":                          nil,
		"gateways.txt":                      {"Unknown Command [gwlist]", "ok"},
		"memcache-module-missing.txt":       {"-ERR memcache Command not found!"},
		"pause-resume-ready.txt":            {"ok", "ok", "ok", "ok", "ok", "ok", "ok"},
		"profile-start-already-running.txt": {"ok"},
		"profile-start-says-success-but-address-missing.txt": {"ok", "Invalid Profile!", "ok"},
		"profile-status-running.txt":                         {"Invalid Profile!"},
		"profile-stop-ok-then-start-collides.txt":            {"ok", "ok", "Invalid Profile!"},
		"profile-stop-refused-within-10s-of-start.txt": {
			"Profile vip2 must be up for at least 10 seconds to stop/restart.",
			"Profile vip2 must be up for at least 10 seconds to stop/restart.",
		},
		"profile-unknown.txt": {"Failure starting nosuch", "Invalid Profile [nosuch]", "Invalid Profile [nosuch]"},
		"recover-nothing.txt": {"ok"},
		"sofia-xmlstatus.txt": {"ok", "ok"},
	}
	for _, name := range recorded.Names(t) {
		var got []string
		for _, s := range recorded.Load(t, name) {
			if !strings.HasPrefix(s.Server, "Content-Type: api/response\n") {
				continue
			}
			f, err := readFrame(bufio.NewReader(strings.NewReader(s.Server)), bodyKept)
			if err != nil {
				t.Fatal(err)
			}
			verdict := "ok"
			if err := judge(string(f.body)); err != nil {
				verdict = err.Error()
			}
			got = append(got, verdict)
		}
		if d := cmp.Diff(verdicts[name], got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}
