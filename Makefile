# `make help` lists the targets.

ADDR ?= 127.0.0.1:7676
ARGS ?=
# Puts the tools on PATH, or fails.
TOOLS = @tools=$$(testdata/tools.sh) && eval "$$tools"
SERVE = fastly compute serve --non-interactive --addr=$(ADDR) $(ARGS)
# The tests wait more than they compute, so six of them run at once, even on two cores.
E2E   = go -C testdata test ./e2e -count=1 -timeout=30m -parallel=6 $(ARGS)

.PHONY: help demo serve test lint live bench load clean go

help: ## List the targets. ADDR=host:port is where the app listens, ARGS='...' are more arguments
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

demo: go ## Run the app with the demo's origin, and print what to try (ARGS: fastly compute serve)
	$(TOOLS) && go -C testdata build -o bin/ ./origin && exec testdata/bin/origin $(SERVE)

serve: go ## Run the app with your own origin (ARGS: fastly compute serve)
	$(TOOLS) && exec $(SERVE)

test: lint ## Run all tests (ARGS: go test, for the end-to-end tests)
	go test ./... && go -C testdata test -race ./grip ./origin
	$(TOOLS) && $(E2E)

lint: go
	@testdata/tools.sh tests >/dev/null
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "run gofmt -w on:" $$unformatted; exit 1; }
	go mod tidy -diff && go -C testdata mod tidy -diff
	go vet ./... && GOOS=wasip1 GOARCH=wasm go vet -tags=fastlyinternalsetparseuri ./... && go -C testdata vet ./...
	staticcheck=$$(go -C testdata tool -n staticcheck) && $$staticcheck ./... && cd testdata && $$staticcheck ./...
	shellcheck testdata/tools.sh

live: go ## Test the demo's origin behind a service: make live URL=https://www.example.com
	@$(if $(URL),,$(error name your service: make live URL=https://www.example.com))
	@$(E2E) -v -run='^TestLive$$' -url='$(URL)'

bench: go ## Measure the app, and those in PEERS, with the Viceroy in VICEROY: see testdata/e2e/README.md
	@[ ! -e testdata/bin/bench.txt ] || mv testdata/bin/bench.txt testdata/bin/bench.old.txt
	$(TOOLS) && mkdir -p testdata/bin && ROUNDS=6 PEERS='$(abspath $(PEERS))' VICEROY='$(abspath $(VICEROY))' \
		$(E2E) -run='^$$' -bench=. >testdata/bin/bench.out
	@sed 's/#[0-9]*//' testdata/bin/bench.out >testdata/bin/bench.txt
	@go -C testdata tool benchstat -col /app bin/bench.txt

load: go ## Hold 4000 connections through the app, check every message, and let parts die (a few minutes)
	$(TOOLS) && ulimit -n 10000 && $(E2E) -v -run='^TestLoad$$' -clients=4000

clean: ## Remove the build output and logs, but not the tools
	rm -rf bin pkg pushpin-logs guest-profiles testdata/bin testdata/_artifacts

go:
	@command -v go >/dev/null || { echo "Go is missing: install it from https://go.dev/dl/" >&2; exit 1; }
