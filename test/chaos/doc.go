// Package chaos runs three real agents under random faults, and judges them by what can
// be seen from outside: see docs/proof.md. It has only tests.
package chaos
