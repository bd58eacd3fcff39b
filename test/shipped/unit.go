package shipped

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

var policy = regexp.MustCompile(`(?ms)^CPUSchedulingPolicy=rr$.*^CPUSchedulingPriority=(\d+)$.*^LimitRTTIME=(\d+)s:(\d+)s$`)

var oomScore = regexp.MustCompile(`(?m)^OOMScoreAdjust=(-?\d+)$`)

// Policy returns the realtime policy with which the shipped unit starts the agent: its
// priority, and a command that starts a program with that policy and its limit.
func Policy() (priority int, command []string, err error) {
	m, err := setting(policy, "a realtime policy with a limit")
	if err != nil {
		return 0, nil, err
	}
	priority, err = strconv.Atoi(m[1])
	return priority, []string{"prlimit", fmt.Sprintf("--rttime=%s000000:%s000000", m[2], m[3]), "chrt", "-r", m[1]}, err
}

// OOMScore returns what the shipped unit makes the kernel add to the agent's score when
// it looks for a process to kill for lack of memory.
func OOMScore() (int, error) {
	m, err := setting(oomScore, "an OOM score")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(m[1])
}

// setting returns the match of a pattern in the shipped unit.
func setting(pattern *regexp.Regexp, what string) ([]string, error) {
	root, err := os.Getwd()
	for ; err == nil; root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			return nil, errors.New("find the unit: no go.mod above the working directory")
		}
	}
	unit := filepath.Join(root, "dist", "systemd", "sipalive.service")
	text, err := os.ReadFile(unit)
	if err != nil {
		return nil, err
	}
	m := pattern.FindStringSubmatch(string(text))
	if m == nil {
		return nil, fmt.Errorf("%s does not set %s", unit, what)
	}
	return m, nil
}
