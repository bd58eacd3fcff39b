//go:build race

package keyring

// share of the simulated runs that is left out: one goroutine has no races to find.
const share = 5
