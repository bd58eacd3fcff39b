// Package e2e judges whole clusters from outside: by what a phone hears, by which hosts
// answer ARP questions, and by what the kernel says about addresses. What an agent
// reports counts only in tests of just that report.
//
// Every scenario runs through [site.scene], which first brings the cluster to rest, and
// then checks the invariants of docs/design.md §10.
package e2e
