# Trunkline's everyday commands. Bare `make` lists them.
#
# ARGS goes to the program a target starts:  make run ARGS="--listen 127.0.0.1:9000"
# CARGO_FLAGS goes to every cargo command:   make test CARGO_FLAGS=--locked

CARGO ?= cargo
CARGO_FLAGS ?=
CARGO_TARGET_DIR ?= $(CURDIR)/target
# One folder for whatever cargo builds, wherever it is started.
export CARGO_TARGET_DIR

FUZZ_DIR ?= bus-schema/fuzz
FUZZ_SECS ?= 20

# Gives the programs a nats-server: the rest of the line runs only if there is one.
with_nats = nats=$$(deploy/fetch/nats-server.sh) && export TRUNKLINE_NATS_SERVER="$$nats" &&

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run build test matrix conformance lint fmt clippy doc ci bench bench-crowd fuzz nats test-deps clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## Fetch nats-server if need be, build, and run the whole platform (ARGS: see `trunkline up --help`)
	@$(with_nats) $(CARGO) build $(CARGO_FLAGS) --release -p trunkline && \
		exec "$(CARGO_TARGET_DIR)/release/trunkline" up $(ARGS)

build: ## Build everything in release mode
	$(CARGO) build $(CARGO_FLAGS) --release --workspace

test: test-deps ## Run all tests (ARGS: what `cargo test` takes, such as a name to filter by)
	@# What tests saw that are no more must not count.
	@case "$(strip $(ARGS))" in ""|--no-fail-fast) rm -rf target/support-matrix ;; esac
	@# The tests start the programs, and `cargo test` alone does not build every one of them.
	@$(with_nats) $(CARGO) build $(CARGO_FLAGS) --workspace --bins && \
		$(CARGO) test $(CARGO_FLAGS) --workspace $(ARGS)
	@# Only a run of all tests has seen the whole matrix.
	@case "$(strip $(ARGS))" in ""|--no-fail-fast) python3 tests/support/matrix.py --check ;; esac

matrix: test-deps ## Write docs/support-matrix.md from what the tests of the matrix see
	@rm -rf target/support-matrix
	@$(with_nats) $(CARGO) build $(CARGO_FLAGS) --workspace --bins && \
		$(CARGO) test $(CARGO_FLAGS) --workspace --test suite matrix:: && \
		python3 tests/support/matrix.py

conformance: test-deps ## Play the official conformance suite with the platform in between (ARGS: its options)
	@$(with_nats) $(CARGO) build $(CARGO_FLAGS) --workspace --bins && \
		"$(CARGO_TARGET_DIR)/debug/conformance" run $(ARGS)

lint: fmt clippy ## Check formatting and lints; any warning fails

fmt:
	$(CARGO) fmt --all -- --check

clippy:
	$(CARGO) clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

doc: ## Build the API documentation; any warning fails
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(CARGO_FLAGS) --workspace --no-deps

ci: CARGO_FLAGS += --locked
ci: ARGS += --no-fail-fast
ci: lint doc test ## Everything CI checks, with Cargo.lock as it stands
	@$(MAKE) --no-print-directory conformance CARGO_FLAGS="$(CARGO_FLAGS)" ARGS=

bench: ## Measure a call through the bus and the HTTP bridge against raw NATS and bare axum (ARGS: its options)
	@$(with_nats) $(CARGO) build $(CARGO_FLAGS) --release -p trunkline -p tests --bins && \
		exec "$(CARGO_TARGET_DIR)/release/bench" $(ARGS)

bench-crowd: ## Measure what 20 failing servers cost the calls to 180 others (ARGS: its options)
	@$(with_nats) $(CARGO) build $(CARGO_FLAGS) --release -p trunkline -p tests --bins && \
		exec "$(CARGO_TARGET_DIR)/release/crowd" $(ARGS)

fuzz: ## Fuzz every parser for FUZZ_SECS seconds (default 20)
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { \
		echo "cargo-fuzz is missing. Install it once with: cargo install cargo-fuzz --locked" >&2; exit 1; }
	@# The variable lets the ordinary stable compiler take the flags that fuzzing needs.
	@export RUSTC_BOOTSTRAP=1; \
	targets=$$($(CARGO) fuzz list --fuzz-dir "$(FUZZ_DIR)") && \
	for target in $$targets; do \
		echo "fuzzing $$target for $(FUZZ_SECS) s" && \
		$(CARGO) fuzz run --fuzz-dir "$(FUZZ_DIR)" "$$target" -- -max_total_time=$(FUZZ_SECS) || exit 1; \
	done

nats: ## Fetch nats-server if need be and print where it is
	@deploy/fetch/nats-server.sh

test-deps: ## Install what the tests run against: MCP clients and servers, Node, Python parts, PostgreSQL
	@python3 tests/support/test-deps.py

clean: ## Remove what was built and fetched (data in .trunkline stays)
	$(CARGO) clean
	rm -rf .cache tests/npm/node_modules
