# `make help` lists the targets. The program behind them is testdata/kit.

ADDR ?= 127.0.0.1:7676
ARGS ?=
KIT  := testdata/bin/kit -addr $(ADDR)
WASM := GOOS=wasip1 GOARCH=wasm go
TAGS := -tags=fastlyinternalsetparseuri
# Runs a shell command that prints `go test -json` output, then lists the failed and skipped tests.
GOTESTSUM = @gotestsum=$$(go -C testdata tool -n gotestsum) && exec "$$gotestsum" --format-hide-empty-pkg --raw-command -- sh -c
UNIT = go test -json ./... && go -C testdata test -json $(RACE) $$(go -C testdata list ./... | grep -v /e2e$$)
# The tests wait more than they compute, so six of them run at once, even on two cores.
E2E  = eval "go -C testdata test -json -count=1 -timeout=20m -parallel=6 $$ARGS ./e2e"
# The race detector needs cgo, and cgo needs a C compiler with its headers. This checks whether they work.
RACE  = $(shell go build -race runtime/cgo 2>/dev/null && echo -race)
WORKFLOWS := $(wildcard .github/workflows/*.yml .github/workflows/*.yaml)

.PHONY: help tools testtools env build serve demo test lint unit e2e load bench clean kit go
export ARGS

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  ADDR=host:port is where the app listens, now $(ADDR). ARGS='...' are arguments for the"
	@echo "  Fastly CLI (build, serve, demo) or for go test (e2e, test): make e2e ARGS=-run=TestDemo."

demo: kit ## Run the app with the demo origin (or with ORIGIN=directory), and print what to try
	@exec $(KIT) -origin "$$ORIGIN" demo $(ARGS)

test: lint testtools ## Run all tests: lint, unit and e2e
	$(GOTESTSUM) '$(UNIT) && $(E2E)'

serve: kit ## Run the app with your own origin (fastly compute serve)
	@exec $(KIT) serve $(ARGS)

build: kit ## Build bin/main.wasm and the package (fastly compute build)
	@exec $(KIT) build $(ARGS)

tools: kit ## Install the Fastly CLI, Viceroy and Pushpin, if they are missing
	@exec $(KIT) tools

env: kit ## Print shell commands that put these tools on PATH: eval "$(make -s env)"
	@exec $(KIT) env $(ARGS)

testtools: kit # also installs a browser, which only the tests need
	@exec $(KIT) testtools

lint: go ## Run gofmt, go vet, staticcheck and actionlint, and ShellCheck if it is on PATH
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "run gofmt -w on:" $$unformatted; exit 1; }
	go mod tidy -diff
	go -C testdata mod tidy -diff
	go vet ./...
	$(WASM) vet $(TAGS) ./...
	go -C testdata vet ./...
	@staticcheck=$$(go -C testdata tool -n staticcheck) && set -x && $$staticcheck ./... && \
		GOOS=wasip1 GOARCH=wasm $$staticcheck $(TAGS) ./... && cd testdata && $$staticcheck ./...
	@if command -v shellcheck >/dev/null; then set -x; shellcheck $(wildcard .ci/run) testdata/local/*.sh; \
		else echo 'ShellCheck is not on PATH: the shell scripts are not checked'; fi
	$(if $(WORKFLOWS),go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 $(WORKFLOWS))

unit: go ## Run only the unit tests, which need no tools but Go
	$(GOTESTSUM) '$(UNIT)'

e2e: testtools ## Run the end-to-end tests, with the Fastly CLI, Viceroy, Pushpin and a browser
	$(GOTESTSUM) '$(E2E)'

load: tools ## Hold 4000 connections through the app, check every message, then test faults (a few minutes)
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
