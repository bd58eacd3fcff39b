package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sipalive/elect"
)

func openDirectory(t *testing.T, base string) *Directory {
	t.Helper()
	d, err := OpenDirectory(filepath.Join(base, "run"), filepath.Join(base, "state"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func aRuntime() *elect.Runtime {
	return &elect.Runtime{Instance: 7, SeqBound: 1 << 20, VIPs: map[elect.VIPID]elect.RuntimeVIP{
		"192.0.2.101": {Grant: &elect.Grant{Holder: "pbx1", Instance: 9, Epoch: 3, Lease: time.Second}, Barred: 2, GivenUp: 1},
	}}
}

func TestRecordsComeBack(t *testing.T) {
	base := t.TempDir()
	d := openDirectory(t, base)
	durable := &elect.Durable{Active: elect.NewVoterList("pbx2", "pbx1"), LongestLease: 3 * time.Second,
		Highest: map[elect.VIPID]elect.Epoch{"192.0.2.101": 5}, Drained: true}
	if err := d.StoreRuntime(aRuntime()); err != nil {
		t.Fatal(err)
	}
	if err := d.StoreDurable(durable); err != nil {
		t.Fatal(err)
	}
	r, got, err := openDirectory(t, base).Restore()
	if err != nil {
		t.Fatal(err)
	}
	ignore := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".until" }, cmp.Ignore())
	if diff := cmp.Diff(aRuntime(), r, ignore); diff != "" {
		t.Errorf("runtime record (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(durable, got); diff != "" {
		t.Errorf("durable record (-want +got):\n%s", diff)
	}
}

// TestRuntimeOfAnotherBootIsVoid: votes and instants of another boot mean nothing on this
// boot's clock. The quiet time covers them.
func TestRuntimeOfAnotherBootIsVoid(t *testing.T) {
	base := t.TempDir()
	d := openDirectory(t, base)
	if err := d.StoreRuntime(aRuntime()); err != nil {
		t.Fatal(err)
	}
	later := openDirectory(t, base)
	later.boot = "another"
	if r, _, err := later.Restore(); r != nil || err != nil {
		t.Errorf("restored %v, %v", r, err)
	}
}

func TestDamagedRecords(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "cut": `{"boot":"x","inst`, "no instance": `{}`, "garbage": "\x00\xff"} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			d := openDirectory(t, base)
			if err := os.WriteFile(filepath.Join(d.run, runtimeName), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if r, _, err := d.Restore(); r != nil || err != nil {
				t.Errorf("a damaged runtime record restored %v, %v", r, err)
			}
			if name == "no instance" {
				return // a durable record may be empty
			}
			if err := os.WriteFile(filepath.Join(d.state, durableName), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := d.Restore(); err == nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("a damaged durable record: %v, want one line", err)
			}
		})
	}
}

// TestStoreFails: a failed write is an error, and the old record stays whole.
func TestStoreFails(t *testing.T) {
	base := t.TempDir()
	d := openDirectory(t, base)
	if err := d.StoreRuntime(aRuntime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(d.run, runtimeName+".new"), 0o700); err != nil {
		t.Fatal(err)
	}
	changed := aRuntime()
	changed.SeqBound = 1
	if err := d.StoreRuntime(changed); err == nil {
		t.Error("no error")
	}
	if r, _, err := d.Restore(); err != nil || r == nil || r.SeqBound != 1<<20 {
		t.Errorf("the old record is %v, %v", r, err)
	}
}

var leaseIDs = []elect.VIPID{"192.0.2.101", "192.0.2.102", elect.RoleID("cdr")}

func TestLeasesComeBack(t *testing.T) {
	base := t.TempDir()
	d := openDirectory(t, base)
	if held, err := d.OpenLeases(leaseIDs); err != nil || len(held) != 0 {
		t.Fatalf("a new file holds %v, %v", held, err)
	}
	d.leases.end("192.0.2.102") // asked for under 4, not held yet
	d.leases.put("192.0.2.102", 4, 100, 900)
	d.leases.put("192.0.2.102", 4, 500, 1100) // renewed: still held since the first put
	d.leases.put(elect.RoleID("cdr"), 2, 200, 800)
	d.leases.put("192.0.2.101", 3, 100, 700)
	d.leases.end("192.0.2.101")
	want := []elect.HeldVIP{{VIP: "192.0.2.102", Epoch: 4, Since: 100, Until: 1100}, {VIP: elect.RoleID("cdr"), Epoch: 2, Since: 200, Until: 800}}
	for range 2 { // twice: the leases that were taken over are written to a new file
		again := openDirectory(t, base)
		held, err := again.OpenLeases(leaseIDs)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, held); diff != "" {
			t.Errorf("leases (-want +got):\n%s", diff)
		}
	}
	other := openDirectory(t, base)
	other.boot = "another"
	if held, err := other.OpenLeases(leaseIDs); err != nil || len(held) != 0 {
		t.Errorf("another boot's leases came back: %v, %v", held, err)
	}
}

// TestTornLease: a crash between the words of a slot must never leave an end
// that belongs to another epoch.
func TestTornLease(t *testing.T) {
	d := openDirectory(t, t.TempDir())
	if _, err := d.OpenLeases(leaseIDs); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.run, leaseName)
	d.leases.put("192.0.2.101", 3, 100, 700)
	d.leases.putEpoch(d.leases.slot("192.0.2.101"), 4, 650) // and then the agent died
	if h, ok := readLeases(path, bootNumber(d.boot))["192.0.2.101"]; ok {
		t.Errorf("a torn slot reads as %+v", h)
	}
}

func TestDamagedLeases(t *testing.T) {
	base := t.TempDir()
	d := openDirectory(t, base)
	for name, data := range map[string][]byte{"short": make([]byte, 7), "long name": append([]byte{255}, make([]byte, 300)...), "noise": []byte(strings.Repeat("\xa5", 513))} {
		if err := os.WriteFile(filepath.Join(d.run, leaseName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if held, err := d.OpenLeases(leaseIDs); err != nil || len(held) != 0 {
			t.Errorf("%s: %v, %v", name, held, err)
		}
	}
}

// TestGrantsOutliveTheAgent: each grant is found with its last end. A grant is not found
// under an epoch whose end had not been written when the agent died, and leases are not
// taken for grants.
func TestGrantsOutliveTheAgent(t *testing.T) {
	base := t.TempDir()
	d := openDirectory(t, base)
	if _, err := d.OpenLeases(leaseIDs); err != nil {
		t.Fatal(err)
	}
	if _, err := d.OpenGrants(leaseIDs); err != nil {
		t.Fatal(err)
	}
	d.leases.put("192.0.2.101", 9, 100, 5000)
	for _, until := range []elect.Instant{700, 900} {
		d.grants.put("192.0.2.101", 3, 0, until)
	}
	d.grants.put("192.0.2.102", 3, 0, 800)
	d.grants.putEpoch(d.grants.slot("192.0.2.102"), 4, 0)
	want := []elect.GrantEnd{{VIP: "192.0.2.101", Epoch: 3, Until: 900}}
	for range 2 {
		got, err := openDirectory(t, base).OpenGrants(leaseIDs)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("found %v, %v, want %v", got, err, want)
		}
	}
}

// TestLeasesFollowAReload: what is held stays on record in the new file, also for a VIP
// that has left the configuration. The next agent finds that nobody looks after that VIP.
func TestLeasesFollowAReload(t *testing.T) {
	base := t.TempDir()
	d := openDirectory(t, base)
	if _, err := d.OpenLeases(leaseIDs); err != nil {
		t.Fatal(err)
	}
	d.leases.put("192.0.2.101", 3, 100, 700)
	d.leases.put("192.0.2.102", 4, 100, 900)
	if held, err := d.OpenLeases(append(leaseIDs[:3:3], "192.0.2.103")); err != nil || len(held) != 2 {
		t.Fatalf("after a reload: %v, %v", held, err)
	}
	d.leases.put("192.0.2.101", 3, 100, 1700) // goes into the new file
	d.leases.put("192.0.2.103", 5, 100, 1800) // a VIP that came with the new file
	next := openDirectory(t, base)
	if left := next.LeftBound(leaseIDs[1:]); len(left) != 2 || !slices.Contains(left, "192.0.2.101") || !slices.Contains(left, "192.0.2.103") {
		t.Errorf("left bound: %v", left)
	}
	if held, err := next.OpenLeases(leaseIDs); err != nil || len(held) != 2 || held[0].Until != 1700 {
		t.Errorf("the next agent finds %v, %v", held, err)
	}
}
