# `make help` lists the targets; `make verify` is what CI runs.
SHELL := /bin/bash
GO ?= go
TOOLS := $(CURDIR)/.cache/bin
GOLANGCI_VERSION := v2.15.0
CORE := ./cdc ./cdc/audit ./cdc/cdctest/simulation ./cdc/kafka ./cdc/metrics ./cdc/outbox ./cdc/postgres ./cdc/routing

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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
	$(GO) test -shuffle=on -parallel 4 -timeout 10m ./...

.PHONY: test-race
test-race: ## the core and its adapters under the race detector
	$(GO) test -race -timeout 15m $(CORE)

.PHONY: test-kafka
test-kafka: ## the same suites against Apache Kafka 4, the core of them against 3.9 (fetched by Maven, needs Java)
	$(GO) run ./cdc/cdctest/apachekafka -- $(GO) test -count=1 -timeout 30m ./cdc/kafka ./cdc/cdctest/... ./notifier ./cmd/...
	@$(MAKE) test-kafka-v1-short

# Kafka 3.9 has no transactions v2: the epoch stays the same from one transaction to the next.
KAFKA_V1 := CDC_TEST_KAFKA_VERSION=3.9.2 $(GO) run ./cdc/cdctest/apachekafka -- sh -c
V1 := ^Test(LedgerUnderKills|Failpoints|LostEndTxnAnswer|KafkaAway|Observer|Markers|Published)

.PHONY: test-kafka-v1-short
test-kafka-v1-short:
	$(KAFKA_V1) '$(GO) test -count=1 -timeout 5m ./cdc/kafka & $(GO) test -count=1 -timeout 5m ./cdc/cdctest/ledger -run "^TestLedgerUnderKills" && wait $$!'

.PHONY: test-kafka-v1
test-kafka-v1: ## Kafka 3.9, transactions v1: the adapter, the ledger under kills, fail-points and lost answers, halts
	$(KAFKA_V1) '$(GO) test -count=1 -timeout 20m -p 1 ./cdc/kafka ./cdc/cdctest/halts && \
	$(GO) test -count=1 -timeout 20m ./cdc/cdctest/ledger -run "$(V1)" && $(GO) test -count=1 -timeout 20m ./cdc/cdctest/endurance -run "^TestTakeover"'

DURATION ?= 10m
SCHEDULES ?= 10000000
.PHONY: chaos
chaos: ## the nemesis for DURATION on Apache Kafka, large resources, SCHEDULES simulated schedules (SEED, PG=15 or 18)
	CDC_CHAOS_BROKER=apache CDC_CHAOS_DURATION=$(DURATION) CDC_TEST_SEED=$(SEED) CDC_TEST_POSTGRES_MAJOR=$(PG) \
	$(GO) test -count=1 -v -timeout 0 ./cdc/cdctest/nemesis -run '^TestNemesis$$'
	CDC_CHAOS=1 CDC_TEST_POSTGRES_MAJOR=$(PG) $(GO) test -tags chaos -count=1 -v -timeout 0 ./cdc/cdctest/endurance
	$(GO) test -count=1 -timeout 0 ./cdc/cdctest/simulation -run '^TestSimulation$$' -args -schedules=$(SCHEDULES)

.PHONY: test-matrix
test-matrix: ## adapter tests and a short ledger on Postgres 14 to 18
	@set -e; for major in 14 15 16 17 18; do echo "== Postgres $$major"; export CDC_TEST_POSTGRES_MAJOR=$$major; \
	$(GO) test -count=1 -timeout 15m ./sql ./cdc/postgres ./cdc/outbox; \
	$(GO) test -count=1 -timeout 15m ./cdc/cdctest/ledger -run '^(TestLedgerUnderKills|TestPostgresCrashes|TestPublishedProperty)$$'; done

.PHONY: test-ops
test-ops: ops-tools upgrade-tools ## alert rules by promtool, every dashboard query on a live Prometheus, the demo page in Chromium, pg_upgrade
	$(GO) test -count=1 -tags ops -timeout 10m ./cmd/cdc-relay/monitoring ./cmd/demo
	$(GO) test -count=1 -tags ops -timeout 10m ./cdc/cdctest/halts -run '^TestMajorUpgrade'

.PHONY: screenshot
screenshot: ops-tools ## the README's pictures of the demo page
	$(GO) test -count=1 -tags ops ./cmd/demo -run TestThePageInABrowser -args -screenshot

.PHONY: ops-tools
ops-tools:
	@command -v promtool >/dev/null && command -v prometheus >/dev/null && command -v chromium >/dev/null || \
	{ apt-get update -q && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends prometheus chromium; }

# PostgreSQL 17 and 18 with pg_upgrade are fetched by pip.
.PHONY: upgrade-tools
upgrade-tools:
	@test -x /usr/lib/postgresql/15/bin/pg_upgrade && python3 -m pip --version >/dev/null || \
	{ apt-get update -q && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends postgresql-15 python3-pip; }

.PHONY: bench
bench: ## drain speed, memory and latency on Apache Kafka (BENCH_FLAGS)
	$(GO) run ./cdc/cdctest/bench $(BENCH_FLAGS)

.PHONY: bench-debezium
bench-debezium: ## the same beside Debezium in Kafka Connect, default and tuned (fetched by Maven, needs Java; BENCH_FLAGS)
	$(GO) run ./cdc/cdctest/bench -debezium -socket $(BENCH_FLAGS)

$(TOOLS)/golangci-lint-$(GOLANGCI_VERSION):
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(TOOLS)/golangci-lint $@

.PHONY: lint
lint: $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION) ## gofmt, vet, golangci-lint
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags failpoints ./cdc/...
	$(GO) vet -tags ops ./cmd/... ./cdc/cdctest/halts
	$(TOOLS)/golangci-lint-$(GOLANGCI_VERSION) run ./...

.PHONY: verify
verify: lint test test-race test-kafka test-ops ## everything that CI runs
