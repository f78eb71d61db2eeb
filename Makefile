# Every command there is. CI and the README call these targets and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
BENCH_ROUNDS ?= 5
BENCH_HOSTS ?= 3,10
# What to test: `make test TESTS='package(windlass-planner)'`, in nextest's language.
TESTS ?= all()

target := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
scripts := scripts/setup scripts/demo scripts/as-root .ci/run e2e/bench/rsync-deploy
host_scripts := $(wildcard controller/hosts/src/*.sh controller/hosts/src/*/*.sh e2e/testbed/src/*.sh)

# Throwaway hosts need root. Only the tests get it; what is built stays the user's own.
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := $(CURDIR)/scripts/as-root
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER := $(CURDIR)/scripts/as-root

.PHONY: help setup build release fmt lint test e2e property soak test-kill-store fuzz-store build-sim sim sim-crashes bench bench-doc bench-store bench-store-doc bench-connections bench-connections-doc bench-scale bench-scale-doc bench-gitops bench-gitops-doc schemas doc demo clean-demo

help: ## Tell what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## Install what building, testing and the demo need; nothing where nothing is missing
	@scripts/setup

build: ## Build everything, the tests too
	$(CARGO) build --workspace --bins --tests

release: ## Build the program that is shipped
	$(CARGO) build --release --package windlass-cli

fmt: ## Format the code
	$(CARGO) fmt --all

lint: setup ## Check format, lints and shell scripts
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	shellcheck $(scripts) $(host_scripts)

test: setup build ## Run every test
	@# The tree that hosts boot from is built once a machine, here and not in a test's time.
	@scripts/as-root $(target)/debug/windlass-testbed up 1 --name prepare >/dev/null
	@scripts/as-root $(target)/debug/windlass-testbed down --name prepare
	$(CARGO) nextest run --workspace --filterset '$(TESTS)'
	$(CARGO) test --workspace --doc --quiet
	@scripts/as-root $(target)/debug/windlass-testbed gc

e2e: ## Run the end-to-end tests alone
	@$(MAKE) test TESTS='package(windlass-e2e)'

# How many seeds: `make fuzz-store SEEDS=1000`.
SEEDS ?= 300

fuzz-store: setup build ## Play random operations to etcd and to the embedded store, and compare; SEEDS says how many
	WINDLASS_FUZZ_SEEDS=$(SEEDS) $(CARGO) nextest run --package windlass-store --profile soak \
	  --filterset 'test(the_embedded_store_answers_as_etcd_does)'

# Which: `make sim SEEDS=10000 SEED_BASE=300`, or `make sim SEED=7`, which replays one and prints its history.
# tokio takes the seed of its own choices only where it is built for that, so all of it is built apart.
simulator = $(target)/sim/sim/windlass-sim

build-sim: setup
	RUSTFLAGS='--cfg tokio_unstable' $(CARGO) build --profile sim --target-dir $(target)/sim \
	    --package windlass-sim --features planted

sim: build-sim ## Simulate fleets: a crash at every point, planted bugs, and many seeds of what can go wrong
ifdef SEED
	SEED=$(SEED) $(simulator) seeds
else
	$(simulator) crashes
	$(simulator) tales
	$(simulator) planted
	SEEDS=$(SEEDS) SEED_BASE=$(or $(SEED_BASE),0) $(simulator) seeds
endif

sim-crashes: build-sim ## Simulate a crash at every point of both lives of a service: what `make sim` plays one of five of
	EVERY=1 $(simulator) crashes

# How many worlds: `make property CASES=100000`; RNG_SEED plays the same again.
property: setup build ## Play random worlds to the planner, other ones each time
	seed="$${RNG_SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}"; echo "RNG_SEED=$$seed"; \
	PROPTEST_RNG_SEED="$$seed" PROPTEST_CASES=$(or $(CASES),4000) $(CARGO) nextest run --package windlass-planner \
	    --profile soak --filterset 'test(whatever_happens)'

soak: setup build ## Run what takes many minutes: five minutes idle, and etcd's own check of the embedded store
	$(CARGO) nextest run --package windlass-e2e --profile soak --run-ignored only
	$(CARGO) nextest run --package windlass-store --profile soak --run-ignored only \
	    --filterset 'test(it_passes_the_check_of_a_minute)'

test-kill-store: setup build ## Kill a process that writes to the embedded store, 200 times
	WINDLASS_TEST_KILLS=200 $(CARGO) nextest run --package windlass-store --profile soak \
	    --filterset 'test(a_killed_process_has_lost_nothing)'

# How many rounds, and with how many hosts: `make bench BENCH_ROUNDS=3 BENCH_HOSTS=3`.
export BENCH_ROUNDS BENCH_HOSTS

bench: setup ## Measure it beside rsync over ssh; BENCH_ROUNDS and BENCH_HOSTS say how much
	$(CARGO) build --release --package windlass-cli --package windlass-bench
	@scripts/as-root $(target)/release/windlass-bench $(BENCH_FLAGS)

bench-doc: ## The same, and write docs/benchmarks.md
	@$(MAKE) bench BENCH_FLAGS='--doc docs/benchmarks.md'

bench-store: setup ## Measure the embedded store beside Debian's etcd; BENCH_ROUNDS says how much
	$(CARGO) build --release --package windlass-cli --package windlass-bench
	@scripts/as-root $(target)/release/windlass-bench $(BENCH_FLAGS) store $(STORE_FLAGS)

bench-store-doc: ## The same, and write docs/benchmarks-store.md
	@$(MAKE) bench-store BENCH_FLAGS='--doc docs/benchmarks-store.md'

bench-connections: setup ## Measure what 1,000 connections to hosts cost at rest, and logins instead of them
	$(CARGO) build --release --package windlass-cli --package windlass-bench
	@scripts/as-root $(target)/release/windlass-bench $(BENCH_FLAGS) connections

bench-connections-doc: ## The same, and write docs/benchmarks-connections.md
	@$(MAKE) bench-connections BENCH_FLAGS='--doc docs/benchmarks-connections.md'

bench-scale: setup ## Measure the engine over 10,000 Services on 1,000 simulated hosts; SCALE_FLAGS says how much
	$(CARGO) build --release --package windlass-bench
	@$(target)/release/windlass-bench $(BENCH_FLAGS) scale $(SCALE_FLAGS)

bench-scale-doc: ## The same, and write docs/benchmarks-scale.md
	@$(MAKE) bench-scale BENCH_FLAGS='--doc docs/benchmarks-scale.md'

bench-gitops: setup ## Measure what following a Git repository costs, from a push to the first host
	$(CARGO) build --release --package windlass-cli --package windlass-bench
	@scripts/as-root $(target)/release/windlass-bench $(BENCH_FLAGS) gitops $(GITOPS_FLAGS)

bench-gitops-doc: ## The same, and write docs/benchmarks-gitops.md
	@$(MAKE) bench-gitops BENCH_FLAGS='--doc docs/benchmarks-gitops.md'

schemas: ## Write the JSON Schemas anew from the types; a test tells when that is due
	WINDLASS_WRITE_SCHEMAS=1 $(CARGO) test --quiet --package windlass-crds --lib -- --exact schema::checked_in::the_files_are_what_the_types_say

doc: ## Build the API's documentation; a broken link is an error
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --workspace --no-deps --document-private-items

demo: ## Show it: three real hosts, a deploy, a bad version that is rolled back
	@scripts/demo

clean-demo: ## Remove whatever a demo that was killed has left
	@scripts/demo clean
