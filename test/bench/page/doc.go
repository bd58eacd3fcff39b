// Package page turns figures into docs/benchmarks.md: raw figures in, as CSV,
// tables and plots out. It measures nothing and has no clock; what it writes
// depends on the figures alone.
//
// The page is written by several programs. What one of them measured stands
// between two marks, which Fill replaces; prose stands outside of them:
//
//	<!-- figures: NAME -->
//	...
//	<!-- end -->
package page
