# One way to do each chore. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
HOST    := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TARGET  := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/$(HOST)/release
IMAGES  := $(TARGET)/images
CLUSTER_PROGRAM := $(TARGET)/debug/cluster
# The cluster of `make cluster-up` and of `make demo KEEP=1`.
NAME    ?= default
# Arguments of `make bench`, such as BENCH='--requests 10000 --rounds 1'.
BENCH   ?=
# How long the soak is, such as SOAK='SOAK_SEED=7 SOAK_ROUNDS=3'.
SOAK    ?= SOAK_REQUESTS=200
# A fuzz target and seconds, such as FUZZ='csr 600'; nothing takes each for a minute.
FUZZ    ?=
# A node without a registry takes an unqualified name such as volttron-operator:0.1.0 for this one.
REGISTRY := docker.io/library
# An image that grows beyond this has caught something it does not need.
MOST_BYTES := 20971520

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
	@echo
	@echo 'KEEP=1 make demo leaves the cluster running. A cluster has a NAME (default: default).'
	@echo 'CLUSTER=existing KUBECONFIG=... make demo uses a cluster that has the images.'

.PHONY: demo
demo: images ## Watch an agent ask, an administrator approve, and the connection on a real RabbitMQ (a minute or two)
	cargo build --quiet --package volttron-tests --bin demo
	$(TARGET)/debug/demo

.PHONY: test
test: images ## Run all tests: unit, integration with a real API server and RabbitMQ, end to end on a whole node
	trap '$(CLUSTER_PROGRAM) sweep' EXIT
	cargo build --workspace
	# Most tests wait rather than compute, so that there may be more of them than cores.
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-12} cargo test --workspace --no-fail-fast

.PHONY: bench
bench: $(CLUSTER_PROGRAM) programs ## Measure; results are printed and written to target/bench.json
	trap '$(CLUSTER_PROGRAM) sweep' EXIT
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --target $(HOST) --package volttron-tests --bin bench
	OPERATOR_BIN=$(abspath $(RELEASE)/volttron-operator) $(RELEASE)/bench $(BENCH)

.PHONY: fuzz
fuzz: ## Let libFuzzer try what parses bytes from outside
	tests/fuzz/run $(FUZZ)

.PHONY: soak
soak: $(CLUSTER_PROGRAM) ## Approve 200 requests at once while everything fails, and check what comes of it
	trap '$(CLUSTER_PROGRAM) sweep' EXIT
	cargo build --package volttron-operator
	env $(SOAK) cargo test --package volttron-tests --test integration -- soak:: --nocapture

.PHONY: lint
lint: $(CLUSTER_PROGRAM) ## Check formatting, code, CRDs, chart and dependencies
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings
	.ci/crds-are-current
	.ci/one-crypto-provider
	HELM="$${HELM:-$$($(CLUSTER_PROGRAM) tool helm)}" charts/lint.sh

.PHONY: images
images: $(IMAGES)/volttron-operator.tar $(IMAGES)/volttron-sidecar.tar $(IMAGES)/volttron-example-agent.tar ## Build the images as OCI archives
	@for program in operator sidecar; do
	  size=$$(stat --format %s $(IMAGES)/volttron-$$program/volttron-$$program)
	  awk -v name="$(REGISTRY)/volttron-$$program:$(VERSION)" -v size=$$size 'BEGIN {printf "%s  %.1f MiB\n", name, size / 1048576}'
	  if ((size > $(MOST_BYTES))); then echo "that is more than 20 MiB" >&2; exit 1; fi
	done

.PHONY: cluster-up
cluster-up: $(CLUSTER_PROGRAM) ## Start a local Kubernetes and print the line that points kubectl at it
	@$(CLUSTER_PROGRAM) up --name $(NAME)

.PHONY: cluster-down
cluster-down: $(CLUSTER_PROGRAM) ## Take it down; nothing of it stays
	@$(CLUSTER_PROGRAM) down --name $(NAME)

.PHONY: clean
clean: ## Remove what was built here (the cache of Kubernetes and RabbitMQ stays)
	cargo clean

# Static, so that an image needs nothing else; each in a folder of its own, which is all that a builder gets.
# Cargo decides what has to be built anew, and a program that stays the same makes no new image.
.PHONY: programs
programs: ## Build the programs of the images; the README says how docker takes it from there
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --target $(HOST) --package volttron-operator --package volttron-sidecar
	for program in volttron-operator volttron-sidecar; do
	  mkdir -p $(IMAGES)/$$program
	  ln -f $(RELEASE)/$$program $(IMAGES)/$$program/
	done

$(IMAGES)/volttron-operator/volttron-operator $(IMAGES)/volttron-sidecar/volttron-sidecar: programs
	@test -x $@

$(IMAGES)/volttron-operator.tar: operator/Containerfile $(IMAGES)/volttron-operator/volttron-operator | $(CLUSTER_PROGRAM)
	cp "$$($(CLUSTER_PROGRAM) image --file $< --context $(IMAGES)/volttron-operator --tag $(REGISTRY)/volttron-operator:$(VERSION))" $@

$(IMAGES)/volttron-sidecar.tar: sidecar/Containerfile $(IMAGES)/volttron-sidecar/volttron-sidecar | $(CLUSTER_PROGRAM)
	cp "$$($(CLUSTER_PROGRAM) image --file $< --context $(IMAGES)/volttron-sidecar --tag $(REGISTRY)/volttron-sidecar:$(VERSION))" $@

$(IMAGES)/volttron-example-agent.tar: $(wildcard examples/agent/*) | $(CLUSTER_PROGRAM)
	mkdir -p $(IMAGES)
	cp "$$($(CLUSTER_PROGRAM) image --file examples/agent/Containerfile.local --context examples/agent --tag $(REGISTRY)/volttron-example-agent:$(VERSION))" $@

.PHONY: cluster-program
cluster-program:
	@cargo build --quiet --package local-cluster

$(CLUSTER_PROGRAM): cluster-program
	@test -x $@
.ONESHELL:
