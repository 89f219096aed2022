# `make` or `make help` lists what there is. Everything runs in .venv, which is made when it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tests start Python hundreds of times, and some machines are told to write no bytecode when they import.
COMPILE := $(BIN)/python -m compileall -q src
# pytest rewrites every test file in each run, unless it may keep what it has rewritten.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

# npm and Node of the test requirements, so that the machine need not have them.
NPM := $(BIN)/python -m tests.nodejs web

# Most tests wait: they run in eight processes on two cores. tests/conftest.py says which tests are run by one process.
# `make test AT_ONCE=` runs one after the other.
AT_ONCE := --processes 8

.DEFAULT_GOAL := help
.PHONY: help demo test unit faults check mypy pyright examples bench layout web screenshots lock clean

help: ## This list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

demo: $(VENV)/.demo ## Start everything and open the page: workflows that talk, devices that watch
	$(BIN)/wakeline demo

test: $(VENV)/.dev ## Every test: unit, contract, Temporal, browser, faults (8 to 20 minutes on two cores)
	scripts/need caddy chromium curl faketime nginx openssl pgbouncer postgresql
	$(COMPILE)
	$(PYTEST) $(AT_ONCE)

unit: AT_ONCE := --processes 16
unit: $(VENV)/.dev ## The unit tests alone (a minute on two cores)
	scripts/need openssl postgresql
	$(COMPILE)
	$(PYTEST) $(AT_ONCE) tests/unit

faults: $(VENV)/.dev ## The long soaks: hundreds of kills under load
	$(COMPILE)
	scripts/need chromium faketime iproute2 pgbouncer postgresql
	WAKELINE_SOAK=15 $(PYTEST) tests/faults tests/shared tests/contract/test_transports.py tests/contract/test_model.py \
		tests/contract/test_handover.py tests/contract/test_openapi.py \
		tests/temporal/test_follower.py tests/temporal/test_following_faults.py tests/temporal/test_streams.py \
		tests/unit/compact/test_compact_fold.py tests/unit/compact/test_compact_operations.py \
		tests/unit/delivery/test_compact_stored.py tests/unit/delivery/test_handover.py \
		tests/unit/delivery/test_handover_ends.py tests/unit/devices/test_interleaved.py \
		tests/unit/transports/test_feed_order.py --timeout 1800
	WAKELINE_SOAK=15 WAKELINE_SCHEDULES=10000 WAKELINE_WEB_TIMEOUT=3600 $(PYTEST) tests/web/test_client.py --timeout 3600
	WAKELINE_SOAK=15 WAKELINE_SCHEDULES=10000 $(PYTEST) tests/web/test_browser.py -k faulty_network --timeout 3600

check: $(VENV)/.dev ## Lint, types, layers, sizes, and the prose of code and documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory --jobs 2 --output-sync mypy pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/style.py
	$(BIN)/python scripts/pages.py

mypy: $(VENV)/.dev
	$(BIN)/mypy

pyright: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

examples: $(VENV)/.dev ## Run every example against a Temporal dev server, and check what it prints
	$(BIN)/python -m examples
	$(BIN)/python -m examples.live

bench: $(VENV)/.dev ## Wakeline, a Redis relay, raw send() loops, Durable Streams, Workflow Streams: side by side (some 40 minutes)
	scripts/need redis-server gcc postgresql
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.storm
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.publishing --rounds 1
	$(BIN)/python -m benchmarks.compact
	$(BIN)/python -m benchmarks.engines
	$(BIN)/python -m benchmarks.gateways
	$(BIN)/python -m benchmarks.following latency --seconds 20
	$(BIN)/python -m benchmarks.following cost --runs 500

layout: $(VENV)/.dev ## Compare SQLite table layouts for the log (some 30 minutes)
	$(BIN)/python -m benchmarks.layout

web: $(VENV)/.dev ## Check, build and test the npm workspace: the client, the React hooks, the demo's page, the inspector
	$(NPM) ci --ignore-scripts --no-audit --no-fund
	$(NPM) exec -- biome check .
	$(NPM) run build --workspaces
	$(NPM) run check --workspaces
	$(NPM) test --workspaces

screenshots: $(VENV)/.dev ## Take the pictures of the documents, in docs/images
	scripts/need chromium
	$(BIN)/python scripts/screenshots.py

lock: $(VENV)/.dev ## Resolve the dependencies anew
	scripts/lock

clean: ## Remove what make has made
	rm -rf $(VENV) dist web/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The virtual environment, with a fast installer in it.
$(BIN)/uv: requirements/uv.txt
	@echo "making $(VENV) and installing into it: some minutes the first time"
	$(PYTHON) -m venv $(VENV) || { scripts/need python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# One stamp a set of requirements; every set brings the package itself, as it stands here.
$(VENV)/.%: requirements/%.txt pyproject.toml | $(BIN)/uv
	@echo "installing requirements/$*.txt: some minutes the first time"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r requirements/$*.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
