package main

import (
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"sipalive/config"
	"sipalive/doctor"
)

// keeper is a program that puts addresses on a machine, and the files that tell it which.
type keeper struct {
	program, process string   // process: its name in /proc/PID/comm, at most 15 bytes; "": it runs at boot
	files            []string // patterns
}

// hostFiles are the keepers of Debian and related systems, with absolute paths.
var hostFiles = []keeper{
	{"keepalived", "keepalived", []string{"/etc/keepalived/*.conf", "/etc/keepalived/*/*.conf"}},
	{"systemd-networkd", "systemd-network", []string{"/etc/systemd/network/*.network", "/etc/systemd/network/*.network.d/*.conf",
		"/run/systemd/network/*.network", "/run/systemd/network/*.network.d/*.conf", "/usr/lib/systemd/network/*.network"}},
	{"NetworkManager", "NetworkManager", []string{"/etc/NetworkManager/system-connections/*", "/run/NetworkManager/system-connections/*", "/usr/lib/NetworkManager/system-connections/*"}},
	{"netplan", "", []string{"/etc/netplan/*.yaml"}},
	{"ifupdown", "", []string{"/etc/network/interfaces", "/etc/network/interfaces.d/*"}},
}

// findKeepers looks for the VIPs in the configuration of every program that could bind
// them. found is never nil, because "nothing found" is reported too. unread contains the
// errors of what could not be read.
func findKeepers(c *config.Config, all []keeper) (found []doctor.Keeper, unread []error) {
	found = []doctor.Keeper{}
	running := runningPrograms()
	for _, k := range all {
		runs, named := k.process == "" || running[k.process], false
		for _, pattern := range k.files {
			texts, errs := readAll(pattern)
			unread = append(unread, errs...)
			for _, file := range slices.Sorted(maps.Keys(texts)) {
				for _, v := range c.VIPs {
					if namesAddress(texts[file], v.Address) {
						named = true
						found = append(found, doctor.Keeper{Program: k.program, File: file, VIP: v.Name, Running: runs})
					}
				}
			}
		}
		if k.program == "keepalived" && runs && !named {
			found = append(found, doctor.Keeper{Program: k.program, Running: true})
		}
	}
	return found, unread
}

// readAll reads the files that match a pattern. A missing file is no error; a file or
// directory without read permission is one.
func readAll(pattern string) (texts map[string]string, unread []error) {
	texts = map[string]string{}
	directories, _ := filepath.Glob(filepath.Dir(pattern)) // the patterns are well-formed
	for _, d := range directories {
		if _, err := os.ReadDir(d); errors.Is(err, fs.ErrPermission) { // Glob does not report this
			unread = append(unread, err)
		}
	}
	files, _ := filepath.Glob(pattern)
	for _, file := range files {
		text, err := os.ReadFile(file)
		switch {
		case err == nil:
			texts[file] = string(text)
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EISDIR):
			unread = append(unread, err)
		}
	}
	return texts, unread
}

// namesAddress reports whether a text contains the address as a word outside comments.
func namesAddress(text string, want netip.Addr) bool {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line, _, _ = strings.Cut(line, "!") // keepalived's comments
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n\"'=,;/[]{}()", r) })
		if slices.ContainsFunc(words, func(w string) bool {
			a, err := netip.ParseAddr(strings.TrimPrefix(w, "-"))
			return err == nil && a.Unmap() == want
		}) {
			return true
		}
	}
	return false
}

func runningPrograms() map[string]bool {
	running := map[string]bool{}
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range names {
		comm, err := os.ReadFile(name) // a process may have ended meanwhile
		if err == nil {
			running[strings.TrimSpace(string(comm))] = true
		}
	}
	return running
}
