// Package peers measures sipalive side by side with keepalived and ucarp: the same
// lab, the same PBXes, the same faults, the same observers outside. What it
// sees goes into docs/benchmarks/peers.csv, and package page makes the page of that.
//
// `make bench` measures everything. Parts are measured again by
//
//	go test -run '^$' -bench Peers -benchtime 1x -timeout 60m ./test/bench/peers \
//		-peers.tools sipalive,keepalived -peers.settings 100ms -peers.faults silent-host,planned-move
//
// and take the place of what was measured of those before. It asserts nothing; a
// run in which the observer itself was held up is rejected and made again.
package peers
