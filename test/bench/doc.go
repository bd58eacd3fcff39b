// Package bench prints the figures that the README promises, as medians over
// runs on the lab, seen from outside: by a phone that asks once per millisecond,
// by ARP questions, and by /proc. It is run by `make bench`. It fails where a run had
// two holders, and where a median misses its target on a machine that was not busy.
//
// A run in which the observer itself was held up for more than a few
// milliseconds is rejected and made again, and the number of those is printed:
// on a busy machine they are many, and what is left is pessimistic.
package bench
