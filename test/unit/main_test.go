package unit

import (
	"os"
	"testing"

	"sipalive/test/shipped"
)

// binary is the path of sipalive as it is shipped, built once per run.
var binary string

func TestMain(m *testing.M) { os.Exit(shipped.Main(m, "unit", &binary, version("v1.0.0")...)) }

// version returns flags of go build that set a binary's version.
func version(v string) []string { return []string{"-ldflags", "-X main.version=" + v} }
