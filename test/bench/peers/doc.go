// Package peers measures sipalive side by side with keepalived and ucarp: the same lab,
// PBXes and faults, and the same observers outside. The figures go into
// docs/benchmarks/peers.csv; package page makes the page from them.
//
// `make bench` measures everything. This measures parts again:
//
//	go test -run '^$' -bench Peers -benchtime 1x -timeout 60m ./test/bench/peers \
//		-peers.tools sipalive,keepalived -peers.settings 100ms -peers.faults silent-host,planned-move
//
// The new figures replace the old ones of those parts. The package asserts nothing. A run
// in which the observer itself was held up is rejected and repeated.
package peers
