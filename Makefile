# `make help` lists the targets. The program behind them is testdata/kit.

ADDR ?= 127.0.0.1:7676
ARGS ?=
KIT  := testdata/bin/kit -addr $(ADDR)
WASM := GOOS=wasip1 GOARCH=wasm go
TAGS := -tags=fastlyinternalsetparseuri
# Runs go test, and repeats the failures at the end.
GOTESTSUM = gotestsum=$$(go -C testdata tool -n gotestsum) && cd $(1) && exec "$$gotestsum" --format-hide-empty-pkg --hide-summary=skipped
# The race detector needs cgo, and cgo needs a C compiler with its headers. This checks whether they work.
RACE  = $(shell go build -race runtime/cgo 2>/dev/null && echo -race)
WORKFLOWS := $(wildcard .github/workflows/*.yml .github/workflows/*.yaml)

.PHONY: help tools env build serve demo test lint unit e2e load bench clean kit go

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  ADDR=host:port sets another address for the app than $(ADDR). ARGS='...' are arguments for the"
	@echo "  Fastly CLI (build, serve, demo) or for go test (e2e, test): make e2e ARGS=-run=TestDemo."

demo: kit ## Run the app with the demo origin (or with ORIGIN=directory), and print what to try
	@exec $(KIT) -origin "$$ORIGIN" demo $(ARGS)

test: lint unit e2e ## Run all tests: lint, unit and e2e

serve: kit ## Run the app with your own origin (fastly compute serve)
	@exec $(KIT) serve $(ARGS)

build: kit ## Build bin/main.wasm and the package (fastly compute build)
	@exec $(KIT) build $(ARGS)

tools: kit ## Install the Fastly CLI, Viceroy and Pushpin, if they are missing
	@exec $(KIT) tools

env: kit ## Print shell commands that put these tools on PATH: eval "$(make -s env)"
	@exec $(KIT) env

lint: kit ## Run gofmt, go vet, staticcheck, ShellCheck and actionlint
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "run gofmt -w on:" $$unformatted; exit 1; }
	go mod tidy -diff
	go -C testdata mod tidy -diff
	go vet ./...
	$(WASM) vet $(TAGS) ./...
	go -C testdata vet ./...
	@staticcheck=$$(go -C testdata tool -n staticcheck) && set -x && $$staticcheck ./... && \
		GOOS=wasip1 GOARCH=wasm $$staticcheck $(TAGS) ./... && cd testdata && $$staticcheck ./...
	@shellcheck=$$($(KIT) shellcheck) && actionlint=$$(go -C testdata tool -n actionlint) && set -x && \
		$$shellcheck $(wildcard .ci/run) testdata/local/*.sh && \
		$(if $(WORKFLOWS),$$actionlint -shellcheck="$$shellcheck" $(WORKFLOWS),:)

unit: kit ## Run the unit tests, with the race detector; they need none of these tools
	@$(call GOTESTSUM,.) --jsonfile=testdata/bin/unit.json -- ./...
	@[ -n "$(RACE)" ] || { echo '*** RACES are NOT TESTED: there is no C compiler (on Debian: sudo apt-get install gcc libc6-dev) ***' >&2; [ -z "$$CI" ]; }
	@$(call GOTESTSUM,testdata) --jsonfile=bin/packages.json -- $(RACE) $$(go list ./... | grep -v '/e2e$$')

e2e: tools ## Run the end-to-end tests, with the Fastly CLI, Viceroy, Pushpin and a browser
	@$(KIT) browser
	@$(KIT) origins
	@$(call GOTESTSUM,testdata) --jsonfile=bin/e2e.json \
		--post-run-command='bin/kit summary $(if $(filter test,$(MAKECMDGOALS)),bin/unit.json bin/packages.json) bin/e2e.json' -- -count=1 -timeout=20m $(ARGS) ./e2e

load: tools ## Hold 4000 connections through the app, check every message, then test faults (some minutes)
	go -C testdata test -count=1 -timeout=20m -v -run='^TestFaults$$' ./e2e -long

bench: tools build ## Measure the app, and other compiled apps: PEERS='files or directories' VICEROY=path JSON=file BENCH='flags'
	@go -C testdata build -o bin/ ./bench
	@exec testdata/bin/bench -viceroy '$(VICEROY)' -json '$(JSON)' $(BENCH) -- $(PEERS)

clean: ## Remove the build output and logs (not the tools' cache)
	rm -rf bin pkg pushpin-logs guest-profiles testdata/bin testdata/_artifacts

kit: go
	@go -C testdata build -o bin/ ./kit ./origin

go:
	@command -v go >/dev/null || { echo "Go is missing: install $$(sed -n 's/^go //p' go.mod) or newer from https://go.dev/dl/" >&2; exit 1; }
