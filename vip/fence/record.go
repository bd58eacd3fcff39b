package fence

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// record is a file in the runtime directory by which an agent recognises the programs of
// earlier agents: without CAP_SYS_ADMIN the kernel tells a program's id, never its name.
// It is written before a program is attached.
type record struct {
	path     string
	Boot     string           `json:"boot"` // ids of another boot mean nothing
	Programs []ebpf.ProgramID `json:"programs"`
	Qdiscs   []int            `json:"qdiscs,omitempty"` // devices on which we made the clsact
}

const bootIDPath = "/proc/sys/kernel/random/boot_id"

// openRecord reads the record. A damaged file, or one of another boot, counts as empty.
func openRecord(path string) (*record, error) {
	boot, err := os.ReadFile(bootIDPath)
	if err != nil {
		return nil, fmt.Errorf("read the boot id: %w", err)
	}
	now := &record{path: path, Boot: strings.TrimSpace(string(boot))}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the fence's record: %w", err)
	}
	var old record
	if err == nil && json.Unmarshal(data, &old) == nil && old.Boot == now.Boot {
		now.Programs, now.Qdiscs = old.Programs, old.Qdiscs
	}
	return now, nil
}

// write replaces the file in one step.
func (r *record) write() error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := r.path + ".new"
	if err := os.WriteFile(tmp, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the fence's record: %w", err)
	}
	if err := os.Rename(tmp, r.path); err != nil {
		return fmt.Errorf("write the fence's record: %w", err)
	}
	return nil
}

// remove removes the file, once no program of ours is left.
func (r *record) remove() error {
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the fence's record: %w", err)
	}
	return nil
}

// ours reports whether the record has the program. If we may ask for the program's name
// (CAP_SYS_ADMIN), our name counts too: the runtime directory may have been emptied.
func (r *record) ours(id ebpf.ProgramID) bool {
	if slices.Contains(r.Programs, id) {
		return true
	}
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info()
	return err == nil && strings.HasPrefix(info.Name, namePrefix)
}
