# `make help` lists the targets; `make verify` is what CI runs.
SHELL := /bin/bash
GO ?= go
TOOLS := $(CURDIR)/.cache/bin
GOLANGCI_VERSION := v2.15.0
CORE := ./cdc ./cdc/kafka ./cdc/metrics ./cdc/outbox ./cdc/postgres ./cdc/routing

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/cdc-relay, bin/payment-api, bin/notifier
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/cdc-relay ./cmd/payment-api ./cmd/notifier

.PHONY: demo
demo: ## the whole path on this machine, with faults at the press of a key (DEMO_FLAGS)
	@$(GO) run ./cmd/demo --since $$(date +%s) $(DEMO_FLAGS)

.PHONY: up down
up: ## the whole path in containers, with Prometheus and Grafana
	docker compose --profile monitoring up --build --wait
down: ## stop the containers and drop their data
	docker compose --profile monitoring down --volumes

.PHONY: test
test: ## everything that needs no more than Go: unit, adapters on real Postgres, ledger on kfake, the binary
	$(GO) test -shuffle=on -timeout 10m ./...

.PHONY: test-race
test-race: ## the core and its adapters under the race detector
	$(GO) test -race -timeout 15m $(CORE)

.PHONY: test-kafka
test-kafka: ## the same suites against Apache Kafka (fetched by Maven, needs Java)
	$(GO) run ./cdc/cdctest/apachekafka -- $(GO) test -count=1 -timeout 30m ./cdc/kafka ./cdc/cdctest/... ./notifier ./cmd/...

.PHONY: test-matrix
test-matrix: ## adapter tests and a short ledger on Postgres 14 to 18
	@set -e; for major in 14 15 16 17 18; do echo "== Postgres $$major"; export CDC_TEST_POSTGRES_MAJOR=$$major; \
	$(GO) test -count=1 -timeout 15m ./sql ./cdc/postgres ./cdc/outbox; \
	$(GO) test -count=1 -timeout 15m ./cdc/cdctest/ledger -run '^(TestLedgerUnderKills|TestPostgresCrashes|TestPublishedProperty)$$'; done

.PHONY: test-ops
test-ops: ops-tools ## alert rules by promtool, every dashboard query on a live Prometheus, the demo page in Chromium
	$(GO) test -count=1 -tags ops -timeout 10m ./cmd/cdc-relay/monitoring ./cmd/demo

.PHONY: screenshot
screenshot: ops-tools ## the README's pictures of the demo page
	$(GO) test -count=1 -tags ops ./cmd/demo -run TestThePageInABrowser -args -screenshot

.PHONY: ops-tools
ops-tools:
	@command -v promtool >/dev/null && command -v prometheus >/dev/null && command -v chromium >/dev/null || \
	{ apt-get update -q && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends prometheus chromium; }

.PHONY: bench
bench: ## drain speed, memory and latency on Apache Kafka (BENCH_FLAGS)
	$(GO) run ./cdc/cdctest/bench $(BENCH_FLAGS)

$(TOOLS)/golangci-lint-$(GOLANGCI_VERSION):
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(TOOLS)/golangci-lint $@

.PHONY: lint
lint: $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION) ## gofmt, vet, golangci-lint
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags failpoints ./cdc/...
	$(GO) vet -tags ops ./cmd/...
	$(TOOLS)/golangci-lint-$(GOLANGCI_VERSION) run ./...

.PHONY: verify
verify: lint test test-race test-kafka test-ops ## everything that CI runs
