# Warden in Rust. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The helpers are linked statically: they run inside containers whose file system may hold no library at all.
# A static binary needs an explicit target, or build scripts and procedural macros would be linked statically too.
TRIPLE := $(shell rustc -vV | sed -n 's/^host: //p')
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
DIST := $(TARGET_DIR)/dist
HELPER_FLAGS := -C target-feature=+crt-static -C relocation-model=static
HELPER_ENV := CARGO_TARGET_$(shell echo $(TRIPLE) | tr 'a-z-' 'A-Z_')_RUSTFLAGS="$(HELPER_FLAGS)"

export WARDEN_DIST = $(abspath $(DIST))

.PHONY: help
help: ## List the targets.
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do printf '%-14s %s\n' "$$name" "$$text"; done

.PHONY: setup
setup: ## Install the Debian packages and cargo tools that are missing.
	@scripts/setup

.PHONY: build
build: setup ## Build wardend, warden and the helpers iomux, wsh and iomux-link into target/dist/.
	$(HELPER_ENV) cargo build --locked --profile helper --target $(TRIPLE) -p warden-init -p warden-iomux --bins
	cargo build --locked --release -p warden-server -p warden-cli --bins
	@mkdir -p $(DIST)
	@install -m 0755 $(TARGET_DIR)/release/{wardend,warden} $(TARGET_DIR)/$(TRIPLE)/helper/{iomux,iomux-link,wsh} $(DIST)/
	@ls -l $(DIST)

.PHONY: demo
demo: build ## Show the main job: a daemon, a container, scripts in it, and that nothing is left.
	@scripts/demo $(DIST)

.PHONY: demo-v2
demo-v2: build ## The same in a virtual machine with Debian's own kernel and pure cgroup v2.
	@scripts/guest/setup
	@scripts/guest/run scripts/demo $(DIST)

.PHONY: confinement
confinement: build ## Compare what a container is denied with Docker's and podman's defaults, seen from inside.
	@scripts/confinement $(DIST)

.PHONY: test
test: build ## Run every test; needs root, and fails where a privileged test cannot run.
	@[[ $$(id -u) = 0 ]] || { echo "make test: the tests make namespaces, mounts and cgroups: run it as root" >&2; exit 1; }
	cargo nextest run --locked --workspace --no-fail-fast

.PHONY: test-v2
test-v2: build ## Run the tests of cgroups, quotas, devices and the network in that virtual machine; at most ten minutes.
	@scripts/guest/setup
	@scripts/guest/tests

.PHONY: test-service
test-service: build ## Run packaging/wardend.service under systemd in that virtual machine: stop, restart and SIGKILL end no container.
	@scripts/guest/setup
	@scripts/guest/service $(DIST)

.PHONY: chaos
chaos: build ## Kill daemon, supervisors, inits and jobs at random while clients work, then check what they were told; CHAOS_KILLS (60), CHAOS_SEED, CHAOS_CLIENTS.
	cargo build --locked -p warden-server --features failpoints --bins
	$(HELPER_ENV) cargo build --locked --target $(TRIPLE) -p warden-iomux --features failpoints --bin iomux
	cargo build --locked -p warden-tests --bin chaos
	@rm -rf $(TARGET_DIR)/dist-chaos && cp -a $(DIST) $(TARGET_DIR)/dist-chaos
	@install -m 0755 $(TARGET_DIR)/debug/wardend $(TARGET_DIR)/$(TRIPLE)/debug/iomux $(TARGET_DIR)/dist-chaos/
	WARDEN_DIST=$(abspath $(TARGET_DIR))/dist-chaos $(TARGET_DIR)/debug/chaos

.PHONY: lint
lint: setup ## Check format, lints, the rules between the crates, and the service for systemd.
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
	scripts/check-rooms
	scripts/check-service

.PHONY: bench-build
bench-build: build
	$(HELPER_ENV) cargo build --locked --profile helper --target $(TRIPLE) -p warden-floor --bins
	cargo build --locked --release -p warden-bench -p warden-tests --bins
	cargo bench --locked --no-run -p warden-container --features benchmark --bench filter-table
	@install -m 0755 $(TARGET_DIR)/$(TRIPLE)/helper/floor $(TARGET_DIR)/release/

.PHONY: bench
bench: bench-build ## Measure beside the kernel's floor and the peers that are installed, then rounds of output, limited bandwidth, rules beside 2,000 containers; docs/benchmarks.
	$(TARGET_DIR)/release/bench
	$(TARGET_DIR)/release/output-rounds
	$(TARGET_DIR)/release/bandwidth
	$(TARGET_DIR)/release/network-costs
	cargo bench --locked --quiet -p warden-container --features benchmark --bench filter-table

.PHONY: bench-quick
bench-quick: bench-build ## The same in below a minute: few samples, no 2,000 containers; results in target/bench.
	$(TARGET_DIR)/release/bench --quick

.PHONY: bench-peers
bench-peers: ## Install the peers that the benchmark measures beside: crun, runc, bubblewrap, podman, lxc, systemd-nspawn.
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends crun runc bubblewrap podman lxc systemd-container

# The fuzzer needs the nightly compiler and nothing else: libfuzzer-sys brings the fuzzer, these flags the coverage.
FUZZ_FLAGS := -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table -C llvm-args=-sanitizer-coverage-trace-compares -Z sanitizer=address --cfg fuzzing
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= frames config snapshot wshd iomux

.PHONY: fuzz
fuzz: ## Feed mutated bytes to each parser for FUZZ_SECONDS (60); needs the nightly toolchain.
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo +nightly build --locked --release --manifest-path fuzz/Cargo.toml --target $(TRIPLE) --bins
	@mkdir -p fuzz/artifacts
	for target in $(FUZZ_TARGETS); do \
	  mkdir -p fuzz/target/corpus/$$target; \
	  fuzz/target/$(TRIPLE)/release/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=10 -artifact_prefix=fuzz/artifacts/$$target- fuzz/target/corpus/$$target fuzz/corpus/$$target; \
	done

.PHONY: clean
clean: ## Remove everything that was built.
	rm -rf target fuzz/target
