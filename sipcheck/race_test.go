//go:build race

package sipcheck

const raceEnabled = true
