# sipalive: make, make demo, make test. Needs Go 1.26; demo and test need root.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
BINARY  := build/sipalive
TOOLS   := kamailio kamailio-tls-modules baresip-core sip-tester memcached nftables systemd dbus procps gcc libc6-dev python3-aiosmtpd curl spin

export CGO_ENABLED = 0

.PHONY: all demo test tools lint race chaos bench clean

all: $(BINARY)

# One static binary. Go knows best what is up to date.
.PHONY: $(BINARY)
$(BINARY):
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/sipalive

# The whole cluster on this machine, failing over before your eyes.
demo: $(BINARY)
	$(BINARY) demo

# The proof of the election: never from the cache, since the chaos run draws a
# new seed each time, and with the figures that docs/proof.md is about.
PROOF := /test/sim /test/model /test/chaos

# Every test. Installs what the end-to-end tests run against: $(TOOLS).
# One package at a time: the end-to-end tests measure, and share the cores.
test: tools
	$(GO) test -parallel 8 -timeout 25m $(shell $(GO) list ./... | grep -v /test/)
	$(GO) test -p 1 -timeout 25m $(shell $(GO) list ./test/... | grep -v $(foreach p,$(PROOF),-e $(p)))
	$(GO) test -v -count 1 -p 1 -timeout 25m $(foreach p,$(PROOF),.$(p)/...)

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

# The race detector needs cgo. The end-to-end tests run the binary, which has
# none, so they are left out, as is the model, which is no Go; the simulator is
# one goroutine per seed, so a few hours of it do.
RACED = $(shell $(GO) list ./... | grep -v -e /test/e2e -e /test/bench $(foreach p,$(PROOF),-e $(p)))
race: tools
	CGO_ENABLED=1 $(GO) test -race -parallel 8 -timeout 25m $(RACED)
	CGO_ENABLED=1 $(GO) test -race -timeout 25m ./test/sim -sim.hours 4 -sim.sizes 1 -sim.single 4 -sim.lists 4 -sim.reloads 3 -sim.locks 2 -sim.free 1h

# Random faults against three real agents, judged from outside; -chaos.seed=N
# replays.
chaos:
	$(GO) test -v -count 1 -timeout 25m ./test/chaos

# The figures of the README, as medians over runs.
bench: tools
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 30m ./test/bench

clean:
	rm -rf build
