# `make demo` shows it, `make test` proves it; both build .venv first. Everything else is for those who change it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
BENCH_STAMP := $(VENV)/.made-bench

# Some machines forbid Python to keep what it has compiled: then every process of the tests would do all of it again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test coverage check lint kernel kernel-checked collected fuzz soak bench bench-profile generate format venv clean

venv: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say PYTHON=/path/to/python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: venv
	$(BIN)/python -m server demo

# Tests wait for much (processes, browsers, leases): twice as many workers as there are cores. Files go out in the order of
# tests/conftest.py, the long ones first.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 2))')
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
test: venv kernel kernel-checked
	$(PYTEST)

# What the tests reach; half as long again as `make test`.
coverage: venv kernel kernel-checked
	$(PYTEST) --cov=server --cov-report=term:skip-covered --cov-fail-under=85

check: lint kernel-checked
	$(BIN)/python -m pytest -q -m pure -p no:cacheprovider -n auto

# What is kept beside the sources, made once instead of by each process of the tests: half a minute's compiling of the kernel,
kernel: venv
	$(BIN)/python -c 'from server.batching.scores.kernel import warm; warm()'

# (as the tests' own processes run it: every index checked)
kernel-checked: venv
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -c 'from server.batching.scores.kernel import warm; warm()'

# and the tests with their assertions written out.
collected: venv
	$(BIN)/python -m pytest --collect-only -qqq >/dev/null

lint: venv
	$(BIN)/ruff format --check server tests scripts client-examples
	$(BIN)/ruff check server tests scripts client-examples
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/limits.py

format:
	$(BIN)/ruff format server tests scripts client-examples
	$(BIN)/ruff check --fix server tests scripts client-examples

generate: venv
	$(BIN)/python scripts/generate.py

HISTORIES ?= 5000
fuzz: venv
	HISTORIES=$(HISTORIES) $(BIN)/python -m pytest tests/batching/scores/test_histories.py -q
	FUZZ=300 $(BIN)/python -m pytest tests/wire/test_fuzz_frames.py tests/wire/test_fuzz_messages.py tests/wire/test_fuzz_http.py -q

soak: venv
	QUEUE_SOAK=1 HISTORIES=500 $(BIN)/python -m pytest tests/adversity tests/batching/imports -q

# What the benches compare with is installed into the same .venv; requirements-bench.lock holds all of requirements.lock.
$(BENCH_STAMP): $(STAMP) requirements-bench.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $(BENCH_STAMP)

# ONLY=engine (or imports, schedules, tiers, tracking, policies, cluster); ARGS=--small tries them out on tiny worlds.
ONLY ?=
ARGS ?=
bench: $(BENCH_STAMP)
	$(BIN)/python -m tests.bench $(ONLY) $(ARGS)

bench-profile: $(BENCH_STAMP)
	$(BIN)/python -m tests.bench.profile $(ARGS)

clean:
	rm -rf $(VENV) build data .pytest_cache .mypy_cache .ruff_cache .hypothesis
