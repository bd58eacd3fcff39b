package actions

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestToldOnce: three agents see a crash and a sickness of all. People are told of each
// once, with its cause.
func TestToldOnce(t *testing.T) {
	dir := t.TempDir()
	told := filepath.Join(dir, "told")
	s := start(t, cluster.Options{TOML: "[timing]\nlease = \"1s\"\nhold_down = \"0s\"\n[[notify]]\nevents = [\"takeover\", \"all_unfit\"]\n" +
		fmt.Sprintf("exec = [\"/bin/sh\", \"-c\", \"echo $SIPALIVE_NODE $SIPALIVE_TEXT >> %s\"]\n", told)}, nil)
	s.record = told
	s.must(s.say("pbx1 [sipalive demo] vip1: nobody -> pbx1, boot, in "))
	before := s.holder("pbx1")
	s.Agent(0).Kill()
	after := s.holder("pbx2", "pbx3")
	s.must(s.say(fmt.Sprintf("%s [sipalive demo] vip1: pbx1 -> %s, crash, in ", after.Holder, after.Holder)))
	for i, n := range s.Nodes() { // the holder's last: a VIP moves within milliseconds
		if n.Name != after.Holder {
			s.PBX(i).Kill()
		}
	}
	for i, n := range s.Nodes() {
		if n.Name == after.Holder {
			s.PBX(i).Kill()
		}
	}
	s.must(s.say("pbx2 [sipalive demo] no node is fit: nobody moves"))
	if n := len(s.lines()); n != 3 {
		t.Errorf("told %d times, before %+v after %+v: %q", n, before, after, s.lines())
	}
}

// say waits for a line that begins like this, and fails if there is a second one.
func (s *site) say(begins string) error {
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	return lab.WaitFor(ctx, begins, func() error {
		n := 0
		for _, line := range s.lines() {
			if strings.HasPrefix(line, begins) {
				n++
			}
		}
		if n != 1 {
			return fmt.Errorf("told %d times: %q", n, s.lines())
		}
		return nil
	})
}
