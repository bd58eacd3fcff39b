package agent

import (
	"fmt"

	"sipalive/config"
	"sipalive/hooks"
)

func hookActions(in []config.Action) []hooks.Action {
	out := make([]hooks.Action, 0, len(in))
	for _, c := range in {
		a := hooks.Action{On: hooks.Phase(c.On), Exec: c.Exec, User: c.User, FreeSWITCH: c.FreeSWITCH, Memcached: c.Memcached,
			HTTP: c.HTTP, SecretFile: c.SecretFile, Timeout: c.Timeout, Retries: c.Retries, GiveBack: c.OnFailure == config.OnFailureRelease}
		for _, w := range c.When {
			a.When = append(a.When, hooks.Cause(w))
		}
		out = append(out, a)
	}
	return out
}

// CheckActions returns an error for an action that could never do what it says.
func CheckActions(c *config.Config) error {
	for i, n := range c.Notify {
		if err := (hooks.Action{On: hooks.Notice, Mail: n.Mail, HTTP: n.HTTP, Exec: n.Exec}).Check(); err != nil {
			return fmt.Errorf("%s: notify %d: %w", c.File, i+1, err)
		}
	}
	for i, a := range hookActions(c.Actions) {
		if err := a.Check(); err != nil {
			return fmt.Errorf("%s: cluster-wide action %d: %w", c.File, i+1, err)
		}
	}
	for _, l := range newNames(c, nil).leases {
		for i, a := range l.actions {
			if err := a.Check(); err != nil {
				return fmt.Errorf("%s: action %d of %s: %w", c.File, i+1, l.name, err)
			}
		}
	}
	return nil
}
