// Package scale measures what may grow with VIPs, nodes and time. `make bench` runs it.
// It writes its figures to docs/benchmarks/scale-*.csv and the tables of
// docs/benchmarks.md. It asserts what must not grow: no agent's memory over time, and no
// cost with the square of the nodes.
package scale
