package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sipalive/eventsocket"
)

const (
	socketTimeout = 5 * time.Second // for one question to FreeSWITCH
	pausedName    = "paused"        // in the runtime directory, while this agent keeps FreeSWITCH paused
)

// pbx asks this node's FreeSWITCH. Each question has its own connection, because
// FreeSWITCH may be restarted while we wait, or be frozen.
type pbx struct {
	client eventsocket.Client
	mark   string // the file that says that we paused it
}

func (a *Agent) pbx() pbx {
	address, password := a.Runner.FreeSWITCH()
	return pbx{
		client: eventsocket.Client{Address: address, Password: password},
		mark:   filepath.Join(a.Directory.Run(), pausedName),
	}
}

func (p pbx) ask(ctx context.Context, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, socketTimeout)
	defer cancel()
	conn, err := p.client.Open(ctx)
	if err == nil {
		defer conn.Close()
		var text string
		if text, err = conn.API(command); err == nil {
			return strings.TrimSpace(text), nil
		}
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer within %s", socketTimeout)
	}
	return "", fmt.Errorf("freeswitch %s: %s: %w", p.client.Address, command, err)
}

// pause stops new calls. ours reports whether new calls were let in before: then this
// agent has to let them in again.
func (p pbx) pause(ctx context.Context) (ours bool, err error) {
	before, err := p.ask(ctx, "fsctl pause_check")
	if err != nil || before == "true" {
		return false, err
	}
	if err := os.WriteFile(p.mark, nil, 0o600); err != nil {
		return false, err
	}
	if _, err = p.ask(ctx, "fsctl pause"); err == nil {
		var now string
		if now, err = p.ask(ctx, "fsctl pause_check"); err == nil && now != "true" {
			err = fmt.Errorf("freeswitch %s: fsctl pause_check says %s after fsctl pause", p.client.Address, now)
		}
	}
	return true, err
}

// hasPaused reports whether this agent, or one before it, keeps FreeSWITCH paused.
// FreeSWITCH up to 1.10.12 then answers OPTIONS with 503; that is no sickness, whether or
// not 503 is listed.
func (a *Agent) hasPaused() bool {
	_, err := os.Stat(filepath.Join(a.Directory.Run(), pausedName))
	return err == nil
}

// resume lets new calls in again. If that fails, the mark stays.
func (p pbx) resume(ctx context.Context) error {
	if _, err := p.ask(ctx, "fsctl resume"); err != nil {
		return err
	}
	return os.Remove(p.mark)
}

var callsTotal = regexp.MustCompile(`(?m)^(\d+) total\.$`)

// calls returns the number of calls on the node.
func (p pbx) calls(ctx context.Context) (int, error) {
	text, err := p.ask(ctx, "show calls count")
	if err != nil {
		return 0, err
	}
	m := callsTotal.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("freeswitch %s: show calls count says %q", p.client.Address, text)
	}
	return strconv.Atoi(m[1])
}
