package host

import (
	"strings"
	"testing"

	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestFenceSays: with fence = "auto", an agent reports in its log and in its status which
// fence it got and what that means. So does an agent that may not use bpf.
func TestFenceSays(t *testing.T) {
	const without = "agent-pbx2"
	s := start(t, options{agent: func(spec lab.Spec) lab.Spec {
		if spec.Name == without {
			spec.Args = append([]string{"--bounding-set", "-all,+net_admin,+net_raw", "--no-new-privs", spec.Path}, spec.Args...)
			spec.Path = "setpriv"
		}
		return spec
	}}, vip1, vip2)
	for i, want := range []struct {
		kind  string
		weak  bool
		means string
		level string
	}{
		{"bpf+lifetime", false, "the kernel silences a VIP at the end of its lease, agent or no agent", "INFO"},
		{"lifetime", true, "may outlive its lease by up to 2.3 s; no bpf: make a map: operation not permitted (needs CAP_BPF)", "WARN"},
	} {
		ctx, cancel := cluster.Deadline(patience)
		st, err := s.Client(i).Status(ctx)
		cancel()
		must(t, err)
		if st.Fence != want.kind || st.FenceWeak != want.weak || !strings.Contains(st.FenceMeans, want.means) {
			t.Errorf("%s: status says %q, weak %t, %q", st.Node, st.Fence, st.FenceWeak, st.FenceMeans)
		}
		log := s.Agent(i).Output()
		if line := "level=" + want.level + ` msg="fence ` + want.kind + `" node=` + st.Node; !strings.Contains(log, line) || !strings.Contains(log, want.means) {
			t.Errorf("%s: the log does not say %s ... %s:\n%s", st.Node, line, want.means, log)
		}
	}
}
