// Package lab is a data centre in network namespaces: a switch, a router, a
// phone behind the router and any number of nodes, on one Linux machine, for
// root. The demo, the end-to-end tests and the benchmarks all stand on it.
//
//	phone 10.77.1.100 --- 10.77.1.1 router 10.77.0.1 --- switch --- 10.77.0.11 pbx1
//	                                                        +------ 10.77.0.12 pbx2
//	                                                        +------ 10.77.0.13 pbx3
//
// Every host is a network namespace under /run/netns, so `ip netns exec` works
// for a human who wants to look. Processes are real processes, started inside
// the namespace. No program is needed: everything goes through netlink and
// setns, the lossy and severed links through nf_tables by netlink too.
//
// # What is faithful and what is not
//
// All namespaces share one kernel, so they share one clock: every time in this
// package is CLOCK_BOOTTIME since boot ([Now]), and times from different hosts
// compare. They share CPUs too: a starved observer says so ([SIPReport.Stall])
// instead of blaming the network. /sys inside a process started here is the
// machine's own, not the namespace's; /proc/sys/net is the namespace's.
//
// # Cleaning up
//
// [Lab.Close] ends every process it started and removes every namespace. A run
// that was killed leaves its namespaces behind, with its process id and start
// time in their names: the next [New] (or [Sweep]) with the same prefix removes
// them, and leaves those of a living run alone. Its processes die with it
// (PR_SET_PDEATHSIG); what still lives in such a namespace is ended as well.
package lab
