// Package e2e judges whole clusters from outside: by what a phone hears, by who
// answers ARP questions, and by the kernel's own word on addresses. What the
// agents say of themselves counts only where a test is about just that.
//
// Every scenario runs through [site.scene], which brings the cluster to rest
// first and checks the invariants of docs/design.md §10 afterwards.
package e2e
