package realinput

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestStreamTargets: the agents probe only by TCP and TLS. One node's certificate comes
// from an authority that tls_ca does not name. So all three agents call that node unfit,
// though it is first in prefer and answers over TCP, until tls_verify = false. The phone
// uses UDP as always.
func TestStreamTargets(t *testing.T) {
	named, other := authority(t, "Named"), authority(t, "Other")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(ca, named.PEM(), 0o644))
	s := launch(t, cluster.Options{VIPs: 1,
		TOML: fmt.Sprintf("%ssettle = \"300ms\"\n[sip]\ntls_verify = true\ntls_ca = %q\n[[sip.target]]\nname = \"plain\"\nuri = \"tcp:5060\"\n"+
			"[[sip.target]]\nname = \"secure\"\nuri = \"tls:5061\"\n", swift, ca),
		PBX: pbxBy(func(h *lab.Host) lab.Spec {
			if h.Name == "pbx1" {
				return kamailioOverAll(t, h, other)
			}
			return kamailioOverAll(t, h, named)
		})})
	for i := range s.Nodes() {
		s.awaitNode(t, i, "pbx1 unfit for its certificate", "pbx1", func(n control.NodeStatus) bool {
			return !n.Fit && n.SIP == "down" && state(n, "plain") == "up" && state(n, "secure") == "silent" &&
				strings.Contains(target(n, "secure").Error, "certificate signed by unknown authority")
		})
		for _, name := range []string{"pbx2", "pbx3"} {
			s.awaitNode(t, i, name+" fit by TCP and TLS", name, func(n control.NodeStatus) bool {
				return n.Fit && state(n, "plain") == "up" && state(n, "secure") == "up" && target(n, "secure").CertificateProblem == ""
			})
		}
	}
	s.await(t, "vip1 held by a node that is believed", func(context.Context) error {
		if h := s.holder(t, 0); h != "pbx2" && h != "pbx3" {
			return fmt.Errorf("at %q", h)
		}
		return nil
	})

	text, err := os.ReadFile(s.Config)
	must(t, err)
	must(t, os.WriteFile(s.Config, []byte(strings.Replace(string(text), "tls_verify = true", "tls_verify = false", 1)), 0o644))
	for i := range s.Nodes() {
		s.command(t, i, "reload")
	}
	s.rests(t)
	for i := range s.Nodes() {
		s.awaitNode(t, i, "pbx1 fit, its certificate's flaw said all the same", "pbx1", func(n control.NodeStatus) bool {
			return n.Fit && strings.Contains(target(n, "secure").CertificateProblem, "unknown authority")
		})
	}

	at := lab.Now()
	s.move(t, 0, "pbx1")
	s.hears(t, 0, "pbx1", at)
	s.rests(t) // verified over TCP and TLS
	at = lab.Now()
	s.PBX(0).Kill()
	s.await(t, "vip1 taken over", func(context.Context) error {
		if h := s.holder(t, 0); h != "pbx2" && h != "pbx3" {
			return fmt.Errorf("at %q", h)
		}
		return nil
	})
	to := s.holder(t, 0)
	s.hears(t, 0, to, at)
	watch(200 * time.Millisecond)
	s.moved(t, 0, at, to)
	s.silent(t, 0, at, time.Second)
}

func authority(t *testing.T, name string) *lab.Authority {
	t.Helper()
	a, err := lab.NewAuthority(name)
	must(t, err)
	return a
}

// target returns one SIP target from a node's status.
func target(n control.NodeStatus, name string) control.TargetStatus {
	for _, t := range n.Targets {
		if t.Name == name {
			return t
		}
	}
	return control.TargetStatus{}
}

func state(n control.NodeStatus, name string) string { return target(n, name).State }
