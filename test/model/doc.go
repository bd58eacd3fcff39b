// Package model uses spin to check lease.pml, a formal model of the voter and holder
// rules of docs/design.md §4.3 to §4.5: see docs/proof.md. It has only tests.
package model
