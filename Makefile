# Every target sets up what it needs: an environment in .venv, another one for the policy pack in policy/.venv.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
STACK ?= staging
ARGS ?=
BIN := .venv/bin
PIP := -m pip install --quiet --disable-pip-version-check
INSTALL := $(BIN)/python $(PIP) -c constraints.txt
# Bytecode is compiled once, after an installation: without it a preview takes three times as long.
COMPILE := -m compileall -q -j 2

.venv/base.stamp: constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found: install Python 3.11 with venv (Debian: apt-get install python3.11-venv)" >&2; exit 2; }
	@echo "setup: environment in .venv"
	@$(PYTHON) -m venv .venv
	@$(INSTALL) "pip==26.1" "setuptools==83.0.0"
	@touch $@

.venv/estate.stamp: .venv/base.stamp pyproject.toml
	@echo "setup: packages of the estate"
	@$(INSTALL) -e ".[estate]"
	@$(BIN)/python $(COMPILE) .venv/lib/python3.11/site-packages/pulumi .venv/lib/python3.11/site-packages/pulumi_* || true
	@touch $@

.venv/serve.stamp: .venv/base.stamp pyproject.toml
	@echo "setup: packages of the services (torch included: some minutes the first time)"
	@$(INSTALL) "torch==2.13.0"
	@$(INSTALL) -e ".[service,learner,engine,local,ops,plots]"
	@echo "setup: compiling the engine for this processor"
	@$(BIN)/python -c "from app.strategic.engine import Engine; Engine.load()"
	@touch $@

.venv/dev.stamp: .venv/base.stamp pyproject.toml
	@echo "setup: all packages (torch included: some minutes the first time)"
	@$(INSTALL) "torch==2.13.0"
	@$(INSTALL) -e ".[dev]"
	@$(BIN)/python $(COMPILE) .venv/lib || true
	@touch $@ .venv/estate.stamp .venv/serve.stamp

policy/.venv/pack.stamp: policy/requirements.txt
	@echo "setup: the policy pack's environment in policy/.venv"
	@$(PYTHON) -m venv policy/.venv
	@policy/.venv/bin/python $(PIP) -r policy/requirements.txt
	@policy/.venv/bin/python $(COMPILE) policy/.venv/lib || true
	@touch $@

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

.PHONY: preview
preview: .venv/estate.stamp policy/.venv/pack.stamp ## Preview a whole stack offline, with policy verdicts (STACK=staging|production)
	@$(BIN)/python -m infra.preview --stack $(STACK) $(ARGS)

.PHONY: policy
policy: .venv/estate.stamp ## Judge exported state (STATE=file.json, from `pulumi stack export`)
	@test -n "$(STATE)" || { echo "error: name the state: make policy STATE=file.json" >&2; exit 2; }
	@$(BIN)/python -m policy.judge --state $(STATE) $(ARGS)

.PHONY: pins
pins: .venv/dev.stamp ## Ask AWS for current AMI releases and add-on versions and pin them (STACK=..., ARGS=--check)
	@$(BIN)/python -m ops.pins --stack $(STACK) $(ARGS)

.PHONY: charts
charts: .venv/dev.stamp ## Are the pinned Helm charts there, and do they do what the estate relies on? (needs the network)
	@$(BIN)/python -c "import helm_python" 2>/dev/null || $(INSTALL) "helm-python-sdk==0.2.2"
	@$(BIN)/python -m ops.charts $(ARGS)

.PHONY: picture
picture: .venv/estate.stamp ## Draw docs/estate.svg, the production estate
	@$(BIN)/python -m infra.preview --stack production --no-policy --output-dir build/picture > /dev/null
	@cp build/picture/production.svg docs/estate.svg

.PHONY: cost
cost: .venv/dev.stamp ## What a stack is billed for by the month, at assumed prices (STACK=..., ARGS="--prices mine.yaml")
	@$(BIN)/python -m ops.cost --stack $(STACK) $(ARGS)

.PHONY: image-pins
image-pins: .venv/dev.stamp ## Ask the registries for current digests of the base images and pin them (ARGS=--check)
	@$(BIN)/python -m ops.image_pins $(ARGS)

.PHONY: schema
schema: .venv/estate.stamp ## Write docs/outputs.schema.json from the outputs' contract
	@$(BIN)/python -m infra.outputs_schema docs/outputs.schema.json

.PHONY: serve
serve: .venv/serve.stamp ## Both services over TLS on loopback, with PostgreSQL and a cache of their own
	@$(BIN)/python -m ops serve $(ARGS)

.PHONY: validate
validate: .venv/serve.stamp ## Health and performance validation of a running system
	@$(BIN)/python -m ops validate $(ARGS)

.PHONY: bench
bench: .venv/dev.stamp policy/.venv/pack.stamp ## The benchmark suite: a table and build/bench.json (ARGS="preview policy" for some)
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: locks
locks: .venv/dev.stamp ## Pin the images' packages by hash (app/*/requirements-*.lock)
	@$(BIN)/python -m ops.locks

WHEELS := strategic-cpu tactical-cpu
DOWNLOAD := -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes
# PyPI has torch for CUDA; the build for CPUs is in PyTorch's own index, and its hash in the lock.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
.PHONY: wheels
wheels: .venv/base.stamp ## Download the wheels that the images are built from (WHEELS="tactical-cuda" for GPU nodes)
	@set -eo pipefail; for image in $(WHEELS); do \
		echo "wheels of $$image"; \
		lock=app/$${image%-*}/requirements-$${image##*-}.lock; wheels=build/wheels/$$image; \
		rm -rf $$wheels; mkdir -p $$wheels; \
		index=; [[ $$image == *-cuda ]] || index="--retries 1 --extra-index-url $(TORCH_INDEX)"; \
		$(BIN)/python $(DOWNLOAD) --dest $$wheels --requirement <(grep -v '^torch==' $$lock); \
		if grep -q '^torch==' $$lock; then $(BIN)/python $(DOWNLOAD) $$index --dest $$wheels --requirement <(grep '^torch==' $$lock); fi; \
	done

.PHONY: authorities
authorities: ## Download the certificate authorities of RDS, which the images trust
	@mkdir -p build/authorities
	@curl --fail --silent --show-error --output build/authorities/global-bundle.pem https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem

.PHONY: compose
compose: .venv/dev.stamp ## Render what compose.yaml mounts (docs/laptop.md)
	@$(BIN)/python -m ops.laptop

.PHONY: lint
lint: .venv/dev.stamp ## Format, lint, types, import directions
	@echo "== format and lint"; $(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	@echo "== types"; $(BIN)/mypy && $(BIN)/ty check --quiet infra/components infra/stacks docs/examples
	@echo "== import directions"; $(BIN)/lint-imports --no-logo 2>/dev/null | tail -1

.PHONY: test
test: lint policy/.venv/pack.stamp ## Every check and test; fast ones first
	@echo "== fast tests"; $(BIN)/pytest -m "not slow"
	@echo "== slow tests: faults, soaks, builds"; $(BIN)/pytest -m slow

.PHONY: format
format: .venv/dev.stamp ## Format, and mend what the linter can mend
	@$(BIN)/ruff check --fix --quiet .; $(BIN)/ruff format --quiet .

.PHONY: clean
clean: ## Remove environments, caches and build products
	@rm -rf .venv policy/.venv build .serve .mypy_cache .ruff_cache .pytest_cache .hypothesis
