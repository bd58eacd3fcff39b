package fence

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"sipalive/platform"
)

// Kind returns what the fence is, in the words of status: bpf+lifetime, bpf, lifetime or
// none.
func (f *Fence) Kind() string {
	switch {
	case f.mode == Auto && f.absent == nil:
		return "bpf+lifetime"
	case f.mode == Auto:
		return "lifetime"
	}
	return string(f.mode)
}

// Lifetimes reports whether addresses must be bound with a lifetime that is renewed.
func (f *Fence) Lifetimes() bool { return f.mode == Auto || f.mode == Lifetime }

// Weak reports whether a VIP may outlive its lease, at least on some device.
func (f *Fence) Weak() bool {
	f.attaching.Lock()
	defer f.attaching.Unlock()
	return f.deadlines == nil || f.partial != nil
}

// What each part of the fence means for the promise of one holder.
const (
	meansBPF      = "the kernel silences a VIP at the end of its lease, agent or no agent"
	meansLifetime = "the VIP of a frozen or killed agent may outlive its lease by up to 2.3 s"
	meansNone     = "the VIP of a frozen or killed agent stays until somebody removes it"
)

// Explain says in one line what the fence is, what that means, and why it is not more.
func (f *Fence) Explain() string {
	switch {
	case f.absent != nil:
		return fmt.Sprintf("%s; no bpf: %v", meansLifetime, f.absent)
	case f.mode == Lifetime:
		return meansLifetime
	case f.mode == None:
		return meansNone
	}
	f.attaching.Lock()
	partial := f.partial
	f.attaching.Unlock()
	text := fmt.Sprintf("%s (%s on %s)", meansBPF, f.hooks[0], strings.Join(f.Attached(), ", "))
	if partial != nil {
		text += fmt.Sprintf("; not everywhere: %v", partial)
	}
	return text
}

// explain says what failed, with a hint.
func explain(what string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s: %w (%s)", what, unix.EPERM, lacking())
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%s: %w (the kernel has no BPF)", what, unix.ENOSYS)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// lacking says which of the reasons for EPERM applies.
func lacking() string {
	if len(platform.MissingCapabilities("CAP_SYS_ADMIN")) == 0 {
		return "a seccomp filter or a security module forbids it"
	}
	if missing := platform.MissingCapabilities("CAP_BPF", "CAP_NET_ADMIN"); len(missing) > 0 {
		return "needs " + strings.Join(missing, " and ")
	}
	return "a seccomp filter such as the unit's SystemCallFilter, a security module, or before Linux 5.11 the limit on locked memory forbids it"
}
