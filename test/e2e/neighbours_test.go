package e2e

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/config"
	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// neighbours starts two clusters on one segment. Their names and keys differ; their node
// names and port are the same.
func neighbours(t *testing.T) (s *site, westFile string) {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{}
	for i, name := range []string{"east", "west"} {
		key, err := config.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keyFile, file := filepath.Join(dir, name+".key"), filepath.Join(dir, name+".toml")
		text := fmt.Sprintf("cluster = %q\nkey_file = %q\n%s", name, keyFile, calm)
		for n := range 3 {
			text += fmt.Sprintf("[[node]]\nname = \"pbx%d\"\naddress = \"10.77.0.%d\"\n", n+1, 11+3*i+n)
		}
		text += fmt.Sprintf("[[vip]]\nname = \"vip%d\"\naddress = \"10.77.0.%d\"\nprefer = [\"pbx1\"]\n", i+1, 101+i)
		if err := os.WriteFile(keyFile, []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		files[name] = file
	}
	s = start(t, cluster.Options{
		Nodes: []string{"east1", "east2", "east3", "west1", "west2", "west3"},
		Agent: func(spec lab.Spec) lab.Spec {
			name := strings.TrimPrefix(spec.Name, "agent-")
			spec.Args = append(spec.Args, "-c", files[name[:4]])
			return spec
		},
	})
	return s, files["west"]
}

// allHeld waits until every agent sees its VIP held and its nodes fit.
func (s *site) allHeld(t *testing.T) {
	t.Helper()
	for i := range s.Nodes() {
		s.status(t, i, "everything held", func(st control.Status) bool {
			return st.Quorum && st.VIPs[0].State == "held" && st.VIPs[0].Verified && node(st, "pbx1").Fit && node(st, "pbx2").Fit && node(st, "pbx3").Fit
		})
	}
}

// nameForeign adds one of east's machines to west's file and restarts west's agents with
// it. From then on that machine gets heartbeats of the other cluster.
func (s *site) nameForeign(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	s.must(t, err)
	text = append(text, "[[node]]\nname = \"gone\"\naddress = \"10.77.0.13\"\nvoter = false\nholder = false\n"...)
	s.must(t, os.WriteFile(file, text, 0o644))
	for i := 3; i < 6; i++ {
		s.Agent(i).Kill()
		s.must(t, s.StartAgent(i))
	}
}

// TestNeighbours: two clusters on one segment do not disturb each other.
func TestNeighbours(t *testing.T) {
	s, west := neighbours(t)
	s.allHeld(t)
	s.nameForeign(t, west)
	s.allHeld(t)
	at := lab.Now()
	s.hears(t, 0, "east1", at)
	s.hears(t, 1, "west1", at)
	s.status(t, 2, "west's heartbeats refused", func(st control.Status) bool {
		return st.Counters["member_wrong_source"]+st.Counters["member_wrong_label"]+st.Counters["member_wrong_key"] >= 10
	})
	s.PBX(0).Kill()
	s.hears(t, 0, "east2", at)
	s.silent(t, 0, at, 500*time.Millisecond)
	s.silent(t, 1, at, 20*time.Millisecond)
	s.check(t, at, moves{1, 0})
	if t.Failed() {
		s.explain(t)
	}
}
