package sipcheck

import (
	"context"
	"fmt"
	"strings"

	"sipalive/eventsocket"
)

// Readiness is what FreeSWITCH says about itself on its event socket. Its standby (`sofia
// global standby on`) shows only in its answers to OPTIONS (503 System Paused). A pause
// (`fsctl pause`) shows only on the event socket (recorded, 1.11.1).
type Readiness int

const (
	ReadinessUnknown Readiness = iota // not asked yet, or no answer: no verdict, OPTIONS decides
	Ready
	Paused  // by an operator: new calls get 503 on purpose
	Unready // neither ready nor paused: it is starting, ending, or has lost its database
)

func (r Readiness) String() string {
	return [...]string{"unknown", "ready", "paused", "not ready"}[r]
}

// AskReadiness asks whether FreeSWITCH is ready, and if not, whether it is paused.
func AskReadiness(ctx context.Context, c eventsocket.Client) (Readiness, error) {
	conn, err := c.Open(ctx)
	if err != nil {
		return ReadinessUnknown, fmt.Errorf("ask FreeSWITCH at %s: %w", c.Address, err)
	}
	defer conn.Close()
	ready, err := askBool(conn, c, "fsctl ready_check")
	if err != nil || ready {
		return map[bool]Readiness{true: Ready}[ready], err
	}
	paused, err := askBool(conn, c, "fsctl pause_check")
	switch {
	case err != nil:
		return ReadinessUnknown, err
	case paused:
		return Paused, nil
	}
	return Unready, nil
}

func askBool(conn *eventsocket.Conn, c eventsocket.Client, command string) (bool, error) {
	text, err := conn.API(command)
	if err != nil {
		return false, fmt.Errorf("ask FreeSWITCH at %s: %s: %w", c.Address, command, err)
	}
	switch strings.TrimSpace(text) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("ask FreeSWITCH at %s: %s: neither true nor false: %q", c.Address, command, printable(text))
}
