package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sipalive/elect"
	"sipalive/hooks"
)

// Directory is the agent's two directories. The runtime directory, a tmpfs, contains what
// must outlive the agent but not the boot. The state directory contains what must outlive
// the boot (§4.5).
type Directory struct {
	run, state string
	boot       string // this boot's id: a runtime record of another boot is void
	leases     *leaseFile
	grants     *leaseFile // the ends of the grants that this node gave as a voter
}

const (
	runtimeName = "runtime.json"
	leaseName   = "leases"
	grantName   = "grants"
	durableName = "durable.json"
	actionsName = "actions"
	bootIDPath  = "/proc/sys/kernel/random/boot_id"
)

type runtimeRecord struct {
	Boot string `json:"boot"`
	elect.Runtime
}

// OpenDirectory creates the two directories if they are missing.
func OpenDirectory(run, state string) (*Directory, error) {
	for _, dir := range []string{run, state} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	boot, err := os.ReadFile(bootIDPath)
	if err != nil {
		return nil, fmt.Errorf("read the boot id: %w", err)
	}
	return &Directory{run: run, state: state, boot: strings.TrimSpace(string(boot))}, nil
}

// Run returns the path of the runtime directory.
func (d *Directory) Run() string { return d.run }

// OpenActions opens the journal of the actions in the runtime directory.
func (d *Directory) OpenActions() (*hooks.Journal, error) {
	return hooks.OpenJournal(filepath.Join(d.run, actionsName), d.boot)
}

// Restore reads what an earlier agent left. A runtime record that is missing, damaged or
// of another boot restores nothing: the quiet time covers what that agent may have
// granted. A damaged durable record is an error, because guessing a voter list is not
// safe.
func (d *Directory) Restore() (runtime *elect.Runtime, durable *elect.Durable, err error) {
	durable, err = d.restoreDurable()
	if err != nil {
		return nil, nil, err
	}
	var r runtimeRecord
	path := filepath.Join(d.run, runtimeName)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, durable, nil
	case err != nil:
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	if json.Unmarshal(data, &r) != nil || r.Boot != d.boot || r.Instance == 0 {
		return nil, durable, nil
	}
	return &r.Runtime, durable, nil
}

func (d *Directory) restoreDurable() (*elect.Durable, error) {
	path := filepath.Join(d.state, durableName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var r elect.Durable
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read %s: %v (move it away: the node then waits for the others before it votes)", path, err)
	}
	return &r, nil
}

// StoreRuntime replaces the runtime record in one step. It does not sync: a tmpfs is gone
// with the power anyway.
func (d *Directory) StoreRuntime(r *elect.Runtime) error {
	data, err := json.Marshal(runtimeRecord{Boot: d.boot, Runtime: *r})
	if err != nil {
		return err
	}
	return replace(filepath.Join(d.run, runtimeName), data, false)
}

// StoreDurable replaces the durable record. It returns when the record is on disk.
func (d *Directory) StoreDurable(r *elect.Durable) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return replace(filepath.Join(d.state, durableName), append(data, '\n'), true)
}

func replace(path string, data []byte, sync bool) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil && sync {
		err = syncDirectory(filepath.Dir(path))
	}
	return err
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}
