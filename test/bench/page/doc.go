// Package page turns figures into docs/benchmarks.md: raw figures come in as CSV, tables
// and plots go out. It measures nothing and reads no clock: its output depends only on
// the figures.
//
// Several programs write the page. What one of them measured stands between two marks,
// and Fill replaces it. Prose stands outside the marks:
//
//	<!-- figures: NAME -->
//	...
//	<!-- end -->
package page
