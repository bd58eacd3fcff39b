// Package lab builds a data centre from network namespaces on one Linux machine: a
// switch, a router, a phone behind the router, and any number of nodes. It needs root.
// The demo, the end-to-end tests and the benchmarks all run on it.
//
//	phone 10.77.1.100 --- 10.77.1.1 router 10.77.0.1 --- switch --- 10.77.0.11 pbx1
//	                                                        +------ 10.77.0.12 pbx2
//	                                                        +------ 10.77.0.13 pbx3
//
// Every host is a named network namespace under /run/netns, so you can look inside with
// `ip netns exec`. Processes are real processes, started inside the namespace. The
// package runs no external programs: it builds everything with netlink and setns. Lossy
// and severed links are nf_tables rules, loaded by netlink too.
//
// # What is real and what is not
//
// All namespaces share one kernel, so they share one clock. Every time in this package is
// the time since boot by CLOCK_BOOTTIME ([Now]), and times from different hosts compare.
//
// All namespaces share the CPUs too. An observer that got no CPU time reports that
// ([SIPReport.Stall]), so that nobody blames the network for it.
//
// A process started here sees the machine's own /sys, but the namespace's /proc/sys/net.
//
// # Cleaning up
//
// [Lab.Close] ends every process that it started and removes every namespace.
//
// A run that was killed leaves its namespaces behind. Their names contain the run's
// process id and start time. The next [New] (or [Sweep]) with the same prefix removes
// them; it leaves the namespaces of a living run alone. The processes of a killed run die
// with it (PR_SET_PDEATHSIG). The sweep kills any process that still lives in its
// namespaces.
package lab
