package config

import (
	_ "embed"
	"slices"
)

//go:embed reference.toml
var referenceTOML []byte

// Reference returns the embedded reference.toml: every key, with its default or an
// example. It is itself a valid configuration.
func Reference() []byte { return slices.Clone(referenceTOML) }
