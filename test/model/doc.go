// Package model checks lease.pml, a formal model of the voter and holder rules
// of docs/design.md §4.3 to §4.5, with spin: see docs/proof.md. It has tests
// only.
package model
