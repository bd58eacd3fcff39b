package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestVersionLine(t *testing.T) {
	built := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: settings}
	}
	commit := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123"}
	changed := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	for _, c := range []struct {
		version string
		info    *debug.BuildInfo
		want    string
	}{
		{"", nil, "sipalive (devel)"},
		{"v1.2.3", nil, "sipalive v1.2.3"},
		{"", built("v1.0.0"), "sipalive v1.0.0"},
		{"v1.2.3", built("v1.0.0", commit), "sipalive v1.2.3, commit 0123456789ab"},
		{"", built("(devel)", commit, changed), "sipalive (devel), commit 0123456789ab and changes"},
	} {
		want := c.want + ", " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
		if got := versionLine(c.version, c.info); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
