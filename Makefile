# d365sync. `make help` lists the targets. Needs Python 3.11 or newer and nothing else; PYTHON=… names another one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.base
DEV := $(VENV)/.dev
BENCH := $(VENV)/.bench
AUDIT := $(VENV)/.audit
AUDIT_BIN := $(VENV)/audit/bin
# one more than cores: the tests that run the command wait for processes of their own
WORKERS = $(shell $(PYTHON) -c "import os; print((os.cpu_count() or 1) + 1)")
PYTEST_ARGS ?= -q -n $(WORKERS) --dist worksteal
MAKEFLAGS += --no-print-directory
# the tests start many processes: compile for all of them once
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check kills soak bench format lint types contracts docs lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

setup: $(BASE)  ## make .venv with d365sync in it
demo: $(BASE)  ## the main job on the demo organization, from nothing
	@$(BIN)/python fixtures/demo.py

test: $(DEV)  ## the tests
	@$(BIN)/pytest $(PYTEST_ARGS) --ignore=tests/kills --ignore=tests/bench

check: $(BENCH)  ## what CI runs: format, lint, types, contracts, tests, a short kill loop, tiny benchmarks
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(MAKE) test
	@$(BIN)/pytest $(PYTEST_ARGS) tests/kills tests/bench

format: $(DEV)  ## put the code into shape
	@$(BIN)/ruff check --fix-only -q . ; $(BIN)/ruff format -q .

kills: $(DEV)  ## kill it at every commit and request, on SQLite and PostgreSQL
	@D365SYNC_TEST_EFFORT=40 $(BIN)/pytest -q -n auto tests/kills

soak: $(DEV)  ## every property on many more random examples
	@D365SYNC_TEST_EFFORT=40 $(BIN)/pytest -q -n auto tests/properties

bench: $(BENCH)  ## measured against other ways; see docs/benchmarks.md (BENCH_ARGS='--only a,d --scale 0.1')
	@$(BIN)/python -m tests.bench.bench $(BENCH_ARGS)

lint: $(DEV)  ## lint, types and import contracts
	@$(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

docs: $(BASE)  ## write the generated documents again
	@$(BIN)/python -m d365sync.config_template > config/d365sync.sample.toml
	@$(BIN)/python -m d365sync.emulator.support > docs/emulator-support.md
	@$(BIN)/python -m d365sync.service config
	@$(BIN)/python -m d365sync.sync.role > config/role-privileges.json
	@$(BIN)/python -m d365sync.doctor.page > docs/doctor.md

audit: $(AUDIT)  ## known weaknesses of what is locked (asks an advisory service over the network)
	@for f in base postgresql dev bench audit; do echo "requirements/$$f.txt"; \
		$(AUDIT_BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements/$$f.txt || exit 1; done

sbom: $(AUDIT)  ## a CycloneDX list of what is locked, in build/
	@mkdir -p build
	@PYTHONWARNINGS=ignore $(AUDIT_BIN)/cyclonedx-py requirements requirements/base.txt --pyproject pyproject.toml --output-reproducible \
		--output-file build/d365sync.cdx.json
	@echo "build/d365sync.cdx.json"

lock: $(DEV)  ## pin every dependency again, with hashes
	@$(BIN)/pip install -q uv
	@for f in base postgresql dev bench audit; do $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
		--upgrade requirements/$$f.in -o requirements/$$f.txt; done

clean:  ## remove the virtual environment and what the demo left
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .hypothesis

$(BASE): requirements/base.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit("d365sync needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	@echo "installing d365sync into $(VENV)"
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/base.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(DEV): $(BASE) requirements/dev.txt
	@echo "installing what the tests need"
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(BENCH): $(DEV) requirements/bench.txt
	@echo "installing what the benchmarks compare with"
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

$(AUDIT): requirements/audit.txt
	@test -x $(AUDIT_BIN)/python || $(PYTHON) -m venv $(VENV)/audit
	@echo "installing what looks through the locked packages"
	@$(AUDIT_BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/audit.txt
	@touch $@
