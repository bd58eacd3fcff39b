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

// Policy is the realtime policy that the shipped unit starts the agent with: its
// priority, and a command that starts a program with it and its limit.
func Policy() (priority int, command []string, err error) {
	root, err := os.Getwd()
	for ; err == nil; root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			return 0, nil, errors.New("find the unit: no go.mod above the working directory")
		}
	}
	unit := filepath.Join(root, "dist", "systemd", "sipalive.service")
	text, err := os.ReadFile(unit)
	if err != nil {
		return 0, nil, err
	}
	m := policy.FindSubmatch(text)
	if m == nil {
		return 0, nil, fmt.Errorf("%s sets no realtime policy with a limit", unit)
	}
	priority, err = strconv.Atoi(string(m[1]))
	return priority, []string{"prlimit", fmt.Sprintf("--rttime=%s000000:%s000000", m[2], m[3]), "chrt", "-r", string(m[1])}, err
}
