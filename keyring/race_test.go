//go:build race

package keyring

// share: only one in share of the simulated runs is done. One goroutine has no races to
// find.
const share = 5
