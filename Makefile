# Nexus on one machine. Needs Python 3.11 or newer and make, nothing else:
#   make run     install into .venv (first time) and serve on 127.0.0.1:8080
#   make test    install what the tests need and run them all

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate
ARGS ?=
AGAIN ?=

.DEFAULT_GOAL := help
.PHONY: help install install-dev run test test-again test-inside test-flow test-chaos bench \
	check format-check lint mypy pyright imports lock build clean

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

install: $(INSTALLED) ## Install Nexus and all it needs at run time into .venv.

install-dev: $(INSTALLED_DEV) ## Install what tests and checks need as well.

run: $(INSTALLED) ## Serve on one machine: make run ARGS="--port 9090 --mock".
	@exec $(BIN)/nexus up $(ARGS)

# Three parts, two at once: most of them wait more than they work.
test: $(INSTALLED_DEV) ## Run all tests: make test ARGS="tests/unit -x".
ifneq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest $(ARGS)
else
	$(MAKE) --no-print-directory -k -j2 -O test-flow test-inside test-chaos
endif

# What failed last time, and only that.
test-again: $(INSTALLED_DEV)
	$(MAKE) --no-print-directory -k test-inside test-flow test-chaos \
		AGAIN="--last-failed --last-failed-no-failures none"

test-inside: FOLDERS := tests/unit tests/property tests/contract
test-flow: FOLDERS := tests/flow tests/faults
test-chaos: FOLDERS := tests/chaos
test-inside test-flow test-chaos: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -o cache_dir=.pytest_cache/$@ $(AGAIN) $(FOLDERS) || \
		{ code=$$?; [ -n "$(AGAIN)" ] && [ $$code -eq 5 ]; }

bench: $(INSTALLED_DEV) ## Measure: make bench ARGS="--against http://127.0.0.1:4000".
	$(BIN)/python -m tests.bench $(ARGS)

check: format-check lint mypy pyright imports ## Format, lint, types, import rules (make -k: all of them).

format-check: $(INSTALLED_DEV)
	$(BIN)/ruff format --check .

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .

mypy: $(INSTALLED_DEV)
	$(BIN)/mypy

pyright: $(INSTALLED_DEV)
	$(BIN)/pyright

imports: $(INSTALLED_DEV)
	$(BIN)/lint-imports

lock: $(INSTALLED_DEV) ## Resolve the dependencies again and write both lock files.
	$(COMPILE) --upgrade pyproject.toml --extra local --group build -o requirements.lock
	$(COMPILE) --upgrade pyproject.toml --extra local --group dev -c requirements.lock \
		-o requirements-dev.lock

build: $(INSTALLED_DEV) ## Build the wheel and the source archive into dist/.
	$(BIN)/python -m build --no-isolation

clean: ## Remove .venv and what builds and tools leave behind; data directories stay.
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Nexus needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# A lock file names everything: without `--no-deps` pip would judge anew what is overridden in
# pyproject.toml. The project itself is installed in place, last and without network: its build tools are locked too.
$(INSTALLED): requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing Nexus into $(VENV) (the first time about 1 GB on disk)"
	@$(PIP_INSTALL) --progress-bar on --require-hashes --only-binary :all: -r requirements.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(INSTALLED_DEV): requirements-dev.lock $(INSTALLED) | $(BIN)/python
	@echo "Installing what tests and checks need into $(VENV)"
	@$(PIP_INSTALL) --progress-bar on --require-hashes --only-binary :all: --no-deps -r requirements-dev.lock
	@touch $@
