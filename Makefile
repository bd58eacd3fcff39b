# sipalive: make, make demo, make test. Needs Go 1.26; demo and test need root.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
BINARY  := build/sipalive
TOOLS   := kamailio kamailio-tls-modules baresip-core sip-tester memcached nftables systemd dbus procps gcc libc6-dev python3-aiosmtpd curl jq spin groff-base prometheus chromium-headless-shell

export CGO_ENABLED = 0

.PHONY: all deb demo test tools lint race chaos newcomer bench clean

all: $(BINARY)

# One static binary. Go knows best what is up to date. What git says of the tree
# stays out: a file that lies beside it would change the bytes.
.PHONY: $(BINARY)
$(BINARY):
	$(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/sipalive

# The Debian package and its bill of materials, in build/. The same commit gives
# the same bytes: every time in it is that of the commit, and no mode is the
# clone's, which had somebody's umask. A tag v1.2.3 is version
# 1.2.3; what is built between tags sorts between them.
DEB_ARCH    ?= $(shell $(GO) env GOARCH)
DEB_VERSION ?= $(shell git describe --tags --match 'v[0-9]*' --dirty=+dirty 2>/dev/null | sed 's/^v//; s/-\([0-9]*-g\)/+\1/; s/-g/.g/' | grep . \
	|| echo "0.0.0+$$(git rev-list --count HEAD 2>/dev/null || echo 0).$$(git describe --always --exclude '*' --dirty=+dirty 2>/dev/null || echo none)")
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
STAGED := build/deb
NFPM   := $(GO) tool -modfile=dist/deb/tools.mod nfpm

deb: VERSION = $(DEB_VERSION)
deb: $(BINARY)
	rm -rf $(STAGED) build/*.deb build/*.cdx.json && mkdir -p $(STAGED)
	for page in sipalive.8 sipalive.toml.5; do $(BINARY) manual $$page >$(STAGED)/$$page && gzip -9n $(STAGED)/$$page || exit 1; done
	for shell in bash zsh fish; do $(BINARY) completion $$shell >$(STAGED)/$$shell || exit 1; done
	printf 'sipalive (%s) unstable; urgency=medium\n\n  * CHANGELOG.md says what changes.\n\n -- %s  %s\n' '$(DEB_VERSION)' \
		"$$(sed -n 's/^maintainer: //p' dist/deb/nfpm.yaml)" "$$(LC_ALL=C date -Rud @$(SOURCE_DATE_EPOCH))" | gzip -9n >$(STAGED)/changelog.gz
	for text in CHANGELOG README; do gzip -9nc $$text.md >$(STAGED)/$$text.md.gz || exit 1; done
	cp -R docs examples $(STAGED)/ && chmod -R u=rwX,go=rX $(STAGED)
	DEB_ARCH=$(DEB_ARCH) DEB_VERSION=$(DEB_VERSION) $(NFPM) package --config dist/deb/nfpm.yaml --packager deb --target build/
	$(GO) run ./cmd/sbom $(BINARY) $(DEB_VERSION) >$$(echo build/*.deb | sed 's/deb$$/cdx.json/')

# The whole cluster on this machine, failing over before your eyes.
demo: $(BINARY)
	$(BINARY) demo

# The end-to-end tests that measure to the millisecond have the machine for themselves.
TIMED := $(addprefix ./test/,bench e2e e2e/actions e2e/fence e2e/host e2e/realinput e2e/realtime unit)
# What computes takes only what the others leave of the cores. Beside it runs the rest,
# which mostly waits.
SIM       := ./test/sim
COMPUTING := ./test/sim/planted ./test/model
# It fetches every module anew.
NEWCOMER  := ./test/newcomer
WAITING    = $(filter-out $(patsubst ./%,sipalive/%,$(TIMED) $(SIM) $(COMPUTING) $(NEWCOMER)),$(shell $(GO) list ./test/...))
# Runs go test, and runs anew what failed while this machine's host held back its cores.
AGAIN     := $(GO) run ./test/again -timeout 25m

# Every test. Installs what the end-to-end tests run against: $(TOOLS). What runs
# the binary is never from the cache, which does not see what it is built of, nor is the
# proof: the chaos run draws a new seed each time, and docs/proof.md is about the figures.
test: tools
	$(AGAIN) -parallel 8 -- $(shell $(GO) list ./... | grep -v /test/)
	$(AGAIN) -v -count 1 -p 1 -- $(TIMED)
	{ chrt -i 0 $(GO) test -v -count 1 -timeout 25m $(SIM) -sim.sizes 20 -sim.single 75 -sim.lists 150 -sim.reloads 25 && \
	chrt -i 0 $(GO) test -v -count 1 -timeout 25m $(COMPUTING); } & computing=$$!; \
	$(AGAIN) -v -count 1 -p 1 -- $(WAITING); waited=$$?; \
	wait $$computing && exit $$waited

tools:
	@missing=; for t in $(TOOLS); do dpkg -s $$t >/dev/null 2>&1 || missing="$$missing $$t"; done; \
	if [ -n "$$missing" ]; then \
		echo "installing for the tests:$$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

lint:
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt -w $$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

# The race detector needs cgo. Only the rooms: what is in test/ runs the binary,
# which has none, or is one goroutine per seed.
race: tools
	CGO_ENABLED=1 $(GO) test -race -vet=off -parallel 8 -timeout 25m $(shell $(GO) list ./... | grep -v /test/)

# Random faults against three real agents, judged from outside; -chaos.seed=N
# replays.
chaos:
	$(GO) test -v -count 1 -timeout 25m ./test/chaos

# What a new user does, by the pages alone: from a fresh clone to a takeover seen, and
# to a cluster of three. The time of each step goes into docs/deployment.md.
newcomer: tools
	$(GO) test -v -count 1 -timeout 25m $(NEWCOMER) -newcomer.write

# The figures of the README, as medians over runs, and docs/benchmarks.md: side by
# side with others, which are installed for this alone. Two hours; parts with e.g.
# PEERS='-peers.tools sipalive -peers.settings 100ms -peers.faults silent-host'.
PEERS ?=

bench: TOOLS += keepalived ucarp sipsak
bench: tools
	@missed=; \
	for part in "'Packet|Set' ./vip/fence" '. ./sipcheck' '. -benchtime 1x -timeout 30m ./test/bench' \
		'. -benchtime 1x -timeout 90m ./test/bench/peers $(PEERS)' '. -benchtime 1x -timeout 120m ./test/bench/scale'; do \
		eval $(GO) test -run "'^$$'" -bench "$$part" || missed=1; \
	done; test -z "$$missed" # a target that is missed keeps no figure from being measured

clean:
	rm -rf build
