# `make` or `make help` lists what there is. Everything runs in .venv, which is made when it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tests start Python hundreds of times, and some machines are told to write no bytecode when they import.
COMPILE := $(BIN)/python -m compileall -q src
# pytest rewrites every test file in each of its processes, unless it may keep what it has rewritten.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

# Most tests wait: they run in four processes on two cores, a file in one. `make test AT_ONCE=` runs one after the other.
AT_ONCE := --numprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test faults check examples bench layout web lock clean

help: ## This list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

demo: $(VENV)/.demo ## Start everything and open the page: workflows that talk, devices that watch
	$(BIN)/wakeline demo

test: $(VENV)/.dev ## Every test: unit, contract, Temporal, browser, faults (some 8 minutes)
	scripts/need chromium curl faketime nginx openssl postgresql
	$(COMPILE)
	$(PYTEST) $(AT_ONCE)

faults: $(VENV)/.dev ## The long soaks: hundreds of kills under load
	$(COMPILE)
	WAKELINE_SOAK=15 $(PYTEST) tests/faults tests/contract/test_transports.py tests/contract/test_model.py \
		tests/unit/compact/test_compact_fold.py tests/unit/compact/test_compact_operations.py \
		tests/unit/delivery/test_compact_stored.py tests/unit/delivery/test_handover.py \
		tests/unit/delivery/test_handover_ends.py tests/unit/devices/test_interleaved.py \
		tests/unit/transports/test_feed_order.py --timeout 1800

check: $(VENV)/.dev ## Lint, types, layers, sizes, and the prose of code and documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/style.py

examples: $(VENV)/.dev ## Run every example against a Temporal dev server, and check what it prints
	$(BIN)/python -m examples
	$(BIN)/python -m examples.live

bench: $(VENV)/.dev ## Wakeline, a Redis relay, raw send() loops, Durable Streams, Workflow Streams: side by side (some 25 minutes)
	scripts/need redis-server gcc
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.storm
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.publishing --rounds 1
	$(BIN)/python -m benchmarks.compact
	$(BIN)/python -m benchmarks.following latency --seconds 20
	$(BIN)/python -m benchmarks.following cost --runs 500

layout: $(VENV)/.dev ## Compare SQLite table layouts for the log (some 30 minutes)
	$(BIN)/python -m benchmarks.layout

web: ## Rebuild the demo's page (needs Node 20)
	cd web && npm ci --no-audit --no-fund && npm run check && npm run build && npm test

lock: $(VENV)/.dev ## Resolve the dependencies anew
	scripts/lock

clean: ## Remove what make has made
	rm -rf $(VENV) dist web/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The virtual environment, with a fast installer in it.
$(BIN)/uv: requirements/uv.txt
	$(PYTHON) -m venv $(VENV) || { scripts/need python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# One stamp a set of requirements; every set brings the package itself, as it stands here.
$(VENV)/.%: requirements/%.txt pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r requirements/$*.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
