# Every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
STACK ?= staging
BIN := .venv/bin
# The CPU build satisfies everything here; another build of torch costs gigabytes.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.venv/base.stamp: constraints.txt
	@echo "setup: creating .venv"
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found: install Python 3.11 (Debian: apt-get install python3.11-venv)" >&2; exit 2; }
	@$(PYTHON) -m venv .venv
	@$(PIP) "pip==26.1" "setuptools==83.0.0"
	@touch $@

.venv/estate.stamp: .venv/base.stamp pyproject.toml
	@echo "setup: the estate's packages"
	@$(PIP) -e ".[estate]" && $(BIN)/python -m compileall -q -j 2 .venv/lib || true
	@touch $@

.venv/dev.stamp: .venv/base.stamp pyproject.toml
	@echo "setup: all packages (torch included; some minutes the first time)"
	@$(PIP) "torch==2.13.0"
	@$(PIP) -e ".[dev]"
	@$(BIN)/python -m compileall -q -j 2 .venv/lib || true
	@touch $@ .venv/estate.stamp

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: format
format: .venv/dev.stamp ## Format and mend what the linter can mend
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

.PHONY: clean
clean: ## Remove environments, caches and build products
	@rm -rf .venv policy/.venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis
