package hooks

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
)

// program is the program of an exec action, wherever it runs.
type program struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env"`
	User string   `json:"user,omitempty"` // "": the agent's own user
}

// account is the user that a program runs as.
type account struct {
	uid      uint32
	switchTo *syscall.Credential // nil: this process's own user
	// keep lets the program keep root's capabilities, because its user was given by name.
	// Otherwise a program gets no capability, even as uid 0.
	keep bool
}

// account returns the user that the program runs as. agent and group are the agent's user
// and group.
func (p program) account(agent, group uint32) (account, error) {
	own := uint32(os.Geteuid())
	if p.User == "" {
		a := account{uid: agent}
		if agent != own {
			a.switchTo = &syscall.Credential{Uid: agent, Gid: group}
		}
		return a, nil
	}
	u, err := user.Lookup(p.User)
	if err != nil {
		return account{}, fmt.Errorf("user %s: no such user on this node", oneLine(p.User))
	}
	c, err := credential(u)
	if err != nil {
		return account{}, err
	}
	if c.Uid == own {
		return account{uid: own, keep: true}, nil
	}
	return account{uid: c.Uid, switchTo: c, keep: true}, nil
}

// credential returns a user with all the groups that a login would have.
func credential(u *user.User) (*syscall.Credential, error) {
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("user %s: %s", u.Username, oneLine(err.Error()))
	}
	var all []uint32
	for _, id := range append([]string{u.Uid, u.Gid}, ids...) {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %s: id %q is not a number", u.Username, id)
		}
		all = append(all, uint32(n))
	}
	return &syscall.Credential{Uid: all[0], Gid: all[1], Groups: slices.Compact(all[2:])}, nil
}
