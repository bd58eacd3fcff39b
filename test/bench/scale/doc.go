// Package scale measures what grows: VIPs, nodes, and time. It is run by
// `make bench`, writes its figures to docs/benchmarks/scale-*.csv and the tables of
// docs/benchmarks.md, and asserts what must not grow: nobody's memory, and no cost
// with the square of the nodes.
package scale
