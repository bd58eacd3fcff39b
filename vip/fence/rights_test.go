package fence

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
)

// agent runs this test program as an agent with only these capabilities.
func (s *site) agent(capabilities string, env ...string) *exec.Cmd {
	cmd := exec.Command("setpriv", "--bounding-set", "-all"+capabilities, "--inh-caps", "-all", "--no-new-privs", "/proc/self/exe")
	exe, err := os.Executable()
	must(s.t, err)
	cmd.Args[len(cmd.Args)-1] = exe
	cmd.Env = append(os.Environ(), "FENCE_RECORD="+s.record)
	if s.clsact {
		cmd.Env = append(cmd.Env, "FENCE_CLSACT=1")
	}
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// With exactly the unit's capabilities, an agent replaces the fence that a killed one
// left, and removes everything at the end.
func TestUnitCapabilities(t *testing.T) {
	hooked(t, func(t *testing.T, s *site) {
		if !s.clsact {
			s.foreign("foreign", link.Tail())
		}
		for range 3 {
			killed := s.agent(",+net_admin,+bpf")
			pipe, err := killed.StdoutPipe()
			must(t, err)
			must(t, killed.Start())
			line := make([]byte, 5)
			_, err = pipe.Read(line)
			must(t, err)
			must(t, killed.Process.Kill())
			_ = killed.Wait()
			if string(line) != "until" {
				t.Fatalf("the agent says %s", line)
			}
		}
		want := s.ours()
		if !s.clsact {
			want = []string{"ingress sipalive_in", "ingress foreign", "egress sipalive_out", "egress foreign"}
		}
		s.wantAttached("eth0", want...)
		out, err := s.agent(",+net_admin,+bpf", "FENCE_ONCE=1").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if s.clsact {
			s.nothingLeft()
		} else {
			s.wantAttached("eth0", "ingress foreign", "egress foreign")
		}
	})
}

func TestMissingCapabilities(t *testing.T) {
	s := newSite(t)
	for _, c := range []struct{ capabilities, mode, want string }{
		{",+net_admin", "auto", "lifetime the VIP of a frozen or killed agent may outlive its lease by up to 2.3 s; " +
			"no bpf: make a map: operation not permitted (needs CAP_BPF)"},
		{",+net_admin", "bpf", `fence = "bpf": make a map: operation not permitted (needs CAP_BPF)`},
		{",+net_admin,+bpf", "auto", "bpf+lifetime the kernel silences a VIP at the end of its lease, agent or no agent (tcx on eth0)"},
		{",+bpf", "auto", "lifetime the VIP of a frozen or killed agent may outlive its lease by up to 2.3 s; " +
			"no bpf: load a program: operation not permitted (needs CAP_NET_ADMIN)"},
		{"", "none", "none the VIP of a frozen or killed agent stays until somebody removes it"},
	} {
		out, _ := s.agent(c.capabilities, "FENCE_ONCE=1", "FENCE_MODE="+c.mode).CombinedOutput()
		if got := strings.TrimSpace(string(out)); got != c.want {
			t.Errorf("with %q and %s:\n%s\nwant\n%s", c.capabilities, c.mode, got, c.want)
		}
		s.wantAttached("eth0")
	}
}

// An agent with few capabilities removes the fence that an agent with more capabilities
// left. If it cannot, it reports an error: otherwise its VIPs would be silent for ever.
func TestInheritedWithoutRights(t *testing.T) {
	s := newSite(t)
	s.foreign("foreign", link.Tail())
	must(t, s.open(0).Close(false))
	out, err := s.agent("", "FENCE_ONCE=1", "FENCE_MODE=auto").CombinedOutput()
	const want = "remove the fence of an earlier agent: remove the fence from eth0: operation not permitted (needs CAP_BPF and CAP_NET_ADMIN)"
	if got := strings.TrimSpace(string(out)); err == nil || got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	s.wantAttached("eth0", "ingress sipalive_in", "ingress foreign", "egress sipalive_out", "egress foreign")
	if out, err := s.agent(",+net_admin", "FENCE_ONCE=1", "FENCE_MODE=auto").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "lifetime ") {
		t.Errorf("%v: %s", err, out)
	}
	s.wantAttached("eth0", "ingress foreign", "egress foreign")
}

// The record is damaged, of another boot or empty. If the kernel tells names
// (CAP_SYS_ADMIN), the programs of an earlier agent are still found.
func TestLostRecord(t *testing.T) {
	s := newSite(t)
	for _, content := range []string{"", "{", `{"boot":"another","programs":[1,2]}`} {
		must(t, s.open(0).Close(false))
		must(t, os.WriteFile(s.record, []byte(content), 0o600))
		f := s.open(0)
		s.wantAttached("eth0", s.ours()...)
		must(t, f.Close(true))
		s.nothingLeft()
	}
}
