package commands

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

// most is what a phone may miss because of a restart, on the lab's switch and this
// machine. A takeover after a lapsed lease would cost a lease of one second.
const most = 300 * time.Millisecond

// foreign builds a sipalive whose packets have another version.
func foreign(t *testing.T) (path string) {
	t.Helper()
	codec, err := filepath.Abs(source + "member/codec.go")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(codec)
	if err != nil {
		t.Fatal(err)
	}
	changed := regexp.MustCompile(`(?m)^(\tversion = )\d+$`).ReplaceAll(text, []byte("${1}200"))
	if bytes.Equal(text, changed) {
		t.Fatal("member/codec.go has no version any more")
	}
	dir := t.TempDir()
	overlay, _ := json.Marshal(map[string]any{"Replace": map[string]string{codec: dir + "/codec.go"}})
	if err := errors.Join(os.WriteFile(dir+"/codec.go", changed, 0o644), os.WriteFile(dir+"/overlay.json", overlay, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := shipped.BuildTo(dir+"/sipalive", "-overlay", dir+"/overlay.json"); err != nil {
		t.Fatal(err)
	}
	return dir + "/sipalive"
}

// crossing is a cluster whose nodes are upgraded to another version one by one.
type crossing struct {
	*cluster.Cluster
	t        *testing.T
	upgraded [3]bool
}

func cross(t *testing.T) *crossing {
	t.Helper()
	x := &crossing{t: t}
	other := foreign(t)
	c, err := cluster.Start(cluster.Options{Binary: binary, Agent: func(s lab.Spec) lab.Spec {
		for i, done := range x.upgraded {
			if done && s.Name == fmt.Sprintf("agent-pbx%d", i+1) {
				s.Path = other
			}
		}
		return s
	}})
	if err != nil {
		t.Fatal(err)
	}
	x.Cluster = c
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func (x *crossing) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// upgrade restarts an agent as the unit's ExecStop= does when systemd restarts it.
func (x *crossing) upgrade(node int) {
	x.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	x.must(x.Agent(node).Signal(syscall.SIGUSR2))
	x.must(x.Agent(node).Wait(ctx))
	x.upgraded[node] = true
	x.must(x.StartAgent(node))
}

// sees waits until a node hears exactly these nodes, has a majority or not as wanted,
// and, if it has one, sees pbx1 as the holder of all VIPs. It returns the epochs.
func (x *crossing) sees(node int, quorum bool, alive ...string) (epochs []uint64) {
	x.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	x.must(lab.WaitFor(ctx, fmt.Sprintf("pbx%d hears %s", node+1, alive), func() error {
		st, err := x.Client(node).Status(ctx)
		if err != nil {
			return err
		}
		var heard []string
		for _, n := range st.Nodes {
			if n.Alive {
				heard = append(heard, n.Name)
			}
		}
		if !slices.Equal(heard, alive) || st.Quorum != quorum {
			return fmt.Errorf("it hears %s, quorum %t", heard, st.Quorum)
		}
		epochs = nil
		for _, v := range st.VIPs {
			if quorum && (v.State != "held" || v.Holder != "pbx1") {
				return fmt.Errorf("%s is %s at %q", v.Name, v.State, v.Holder)
			}
			epochs = append(epochs, v.Epoch)
		}
		return nil
	}))
	return epochs
}

// TestAnotherWireFormat: an upgrade in the order that docs/upgrade.md gives moves
// nothing.
func TestAnotherWireFormat(t *testing.T) {
	x := cross(t)
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	x.must(x.WaitHeld(ctx, 0, "pbx1", "pbx2", "pbx3"))
	_, err := x.Client(0).Do(ctx, control.Command{Kind: control.Move, VIP: "vip2", Node: "pbx1"})
	x.must(err)
	before := x.sees(0, true, "pbx1", "pbx2", "pbx3")
	var phones []*lab.SIPObserver
	lab.WatchStolen()
	for _, v := range x.VIPs {
		phone, err := x.Phone().ObserveSIP(netip.AddrPortFrom(v, 5060), 2*time.Millisecond)
		x.must(err)
		phones = append(phones, phone)
	}
	began := lab.Now()

	x.upgrade(2)
	x.sees(2, false, "pbx3")
	x.sees(0, true, "pbx1", "pbx2")
	x.upgrade(0)
	x.sees(0, true, "pbx1", "pbx3")
	x.sees(1, false, "pbx2")
	x.upgrade(1)
	var after []uint64
	for node := range 3 {
		after = x.sees(node, true, "pbx1", "pbx2", "pbx3")
	}
	if !slices.Equal(after, before) {
		t.Errorf("epochs %v before, %v after: something moved", before, after)
	}
	for i, phone := range phones {
		phone.Stop()
		r, excused, err := lab.WatchStolen().Excuse(phone, began, lab.Now(), most)
		t.Logf("%s: %v, excused %v, %v", cluster.VIPName(i), r, excused, err)
		if err != nil || r.Answered == 0 || r.Silence > most+excused {
			t.Errorf("%s: a phone noticed the upgrade: %v", cluster.VIPName(i), r)
		}
	}
}
