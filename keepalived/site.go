package keepalived

import (
	"net/netip"
	"slices"
	"time"
)

// note is a setting of the file that was not kept as it is, and why.
type note struct {
	lines     []int
	what, why string
}

// site is what the file says, as far as sipalive has an equivalent.
type site struct {
	routerID   string
	mail       []string
	mailFrom   string
	mailServer string
	smtpAlert  bool
	user       string // script_user
	refresh    time.Duration
	scripts    []*script
	instances  []*instance
	groups     []group
	notes      []note
}

type address struct {
	line  int
	ip    netip.Addr
	iface string
}

// hook is a notify script. Its kind is master, backup, fault, stop or all.
type hook struct {
	line       int
	kind       string
	command    string
	user       string
	sync, name string // for kind all: what keepalived adds to the command line
	priority   string
}

func (s *site) note(line int, what, why string) {
	for i := range s.notes {
		if s.notes[i].what == what && s.notes[i].why == why {
			if !slices.Contains(s.notes[i].lines, line) {
				s.notes[i].lines = append(s.notes[i].lines, line)
			}
			return
		}
	}
	s.notes = append(s.notes, note{[]int{line}, what, why})
}

func (s statement) key() string { return s.arg(0) }

func (s statement) arg(i int) string {
	if i < len(s.words) {
		return s.words[i]
	}
	return ""
}
