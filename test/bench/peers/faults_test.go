package peers

import (
	"errors"
	"syscall"
	"time"

	"sipalive/test/lab"
)

// fault says how to make one of the page's faults, and how to undo it.
type fault struct {
	begin, end func(*site) error
	passes     bool // by itself, after a while; otherwise an operator ends it once the VIP has moved
}

var makers = map[string]fault{
	"silent-host":  {begin: func(s *site) error { return s.Cut(s.Node(0)) }, end: func(s *site) error { return s.Restore(s.Node(0)) }},
	"cable-pulled": {begin: func(s *site) error { return s.PullCable(s.Node(0)) }, end: func(s *site) error { return s.PlugCable(s.Node(0)) }},
	"planned-stop": {begin: agents(func(p *lab.Process) error { return p.Signal(syscall.SIGTERM) }), end: restart},
	"planned-move": {begin: func(s *site) error { return s.move() }, end: func(s *site) error { return s.unmove() }},
	"pbx-killed": {begin: func(s *site) error {
		s.pbx(0).Kill()
		return nil
	}, end: func(s *site) error { return s.startPBX(0) }},
	"pbx-frozen":   {begin: func(s *site) error { return s.pbx(0).Stop() }, end: func(s *site) error { return s.pbx(0).Cont() }},
	"agent-frozen": {begin: agents((*lab.Process).Stop), end: agents((*lab.Process).Cont), passes: true},
	"agent-killed": {begin: agents(func(p *lab.Process) error { return p.Signal(syscall.SIGKILL) }), end: restart, passes: true},
	"partition": {begin: func(s *site) error {
		return errors.Join(s.Sever(s.Node(0), s.Node(1)), s.Sever(s.Node(0), s.Node(2)))
	}, end: func(s *site) error { return s.Heal() }, passes: true},
}

// agents applies do to the daemons of home.
func agents(do func(*lab.Process) error) func(*site) error {
	return func(s *site) (err error) {
		for _, p := range s.tool.agents(0) {
			err = errors.Join(err, do(p))
		}
		return err
	}
}

// restart waits until the daemons of home have ended, and starts them again.
func restart(s *site) error {
	for _, p := range s.tool.agents(0) {
		select {
		case <-p.Done():
		case <-time.After(patience):
			return errors.New("restart: a daemon of " + p.Host.Name + " does not end")
		}
	}
	return s.startAgents(0)
}
