// Package bench prints the figures that the README promises, as medians over runs on the
// lab, seen from outside: by a phone that asks once per millisecond, by ARP questions,
// and by /proc. `make bench` runs it. It fails if a run had two holders, or if a median
// misses its target on a machine that was not busy.
//
// A run in which the observer itself was held up for more than a few milliseconds is
// rejected and repeated. The number of rejected runs is printed. On a busy machine there
// are many of them, and the remaining figures are pessimistic.
package bench
