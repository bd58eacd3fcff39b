package actions

import (
	"fmt"
	"slices"
	"testing"

	"sipalive/test/cluster"
)

// TestWhen: of the actions with `when`, only those for the takeover's cause run, at the
// new holder and at the old one.
func TestWhen(t *testing.T) {
	s := start(t, cluster.Options{TOML: "[timing]\nlease = \"1s\"\nhold_down = \"0s\"\n"}, func(s *site) (all string) {
		say := s.script("note", note)
		for _, on := range []string{"acquire", "release"} {
			for _, cause := range []string{"move", "crash", "sip", "boot"} {
				all += action(on, fmt.Sprintf("when = [%q]", cause), say, cause)
			}
		}
		return all
	})
	s.recorded("pbx1 acquire vip1 1 boot")
	epoch := s.move("vip1", "pbx2")
	s.recorded("pbx1 release vip1 1 move")
	s.recorded(fmt.Sprintf("pbx2 acquire vip1 %d move", epoch))

	s.PBX(1).Kill()
	sick := s.holder("pbx1", "pbx3")
	s.recorded(fmt.Sprintf("pbx2 release vip1 %d sip", epoch))
	s.recorded(fmt.Sprintf("%s acquire vip1 %d sip", sick.Holder, sick.Epoch))

	s.Agent(s.Index(sick.Holder)).Kill()
	others := slices.DeleteFunc([]string{"pbx1", "pbx2", "pbx3"}, func(n string) bool { return n == sick.Holder })
	dead := s.holder(others...)
	s.recorded(fmt.Sprintf("%s acquire vip1 %d crash", dead.Holder, dead.Epoch))
	s.must(s.StartAgent(s.Index(sick.Holder)))
	s.recorded(fmt.Sprintf("%s release vip1 %d crash", sick.Holder, sick.Epoch))
	if n := len(s.lines()); n != 7 {
		t.Errorf("%d actions ran, want 7: %q", n, s.lines())
	}
}
