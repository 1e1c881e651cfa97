# certiflow: `make` lists the targets.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup run-flow compare serve guard check test soundness lint bench ui lock clean

CONF ?= conf/default.yaml
CRON ?= 0 2 * * *
PORT ?= 5000
SECONDS ?= 600
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Nothing here calls home.
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

run-flow: setup ## train, attack, verify and report (CONF=conf/x.yaml)
	@$(BIN)/certiflow run --conf $(CONF)

compare: setup ## model versions side by side, best first
	@$(BIN)/certiflow compare

serve: setup ## serve the scheduled retraining (CONF=..., CRON='0 2 * * *')
	@$(BIN)/certiflow serve --conf $(CONF) --cron '$(CRON)'

guard: setup ## serve the champion, each label with its proof (conf/guard.yaml)
	@$(BIN)/certiflow guard

QUICK := $(addprefix tests/,test_layers.py test_architecture.py test_documents.py tasks/test_settings.py) \
  $(addprefix tests/core/,properties data sources bounds dual attacks evidence bundle)

check: lint ## lint, types, and the tests that take less than a minute
	@$(BIN)/python -m pytest --quiet --durations=0 --durations-min=5 $(QUICK)

test: setup ## the whole test suite
	@$(BIN)/python -m pytest --numprocesses=auto --dist=loadscope --no-loadscope-reorder

soundness: setup ## ask all engines what is known exactly (SECONDS=600)
	@$(BIN)/python -m tests.soundness --seconds $(SECONDS)

lint: setup ## ruff and mypy
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: setup $(VENV)/.bench ## speed, beside plain loops and other libraries
	@$(BIN)/python -m tests.bench
	@$(BIN)/python -m tests.bench_verification
	@$(BIN)/python -m tests.bench_certificates

ui: setup ## MLflow's UI on 127.0.0.1:5000 (PORT=...)
	@$(BIN)/certiflow ui --port $(PORT)

clean: ## remove caches and .venv; runs, data and MLflow's store stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

LOCK := --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
  --no-emit-find-links --no-emit-trusted-host

lock: setup ## resolve the versions anew into the lock files (pip-tools)
	@$(BIN)/python -m venv --clear $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet pip-tools
	@$(VENV)/lock/bin/pip-compile $(LOCK) --extra dev -o requirements.lock pyproject.toml
	@$(VENV)/lock/bin/pip-compile $(LOCK) --extra bench -c requirements.lock -o requirements-bench.lock pyproject.toml

setup: $(STAMP) ## make .venv from the lock file, where it is missing or stale

# The environment is made anew when the lock file has changed or its Python is gone.
ifneq ($(shell $(BIN)/python -c 'import sys; print(sys.version_info[:2] == (3, 11))' 2>/dev/null),True)
.PHONY: $(STAMP)
endif

# The lock files are whole: --no-deps keeps pip from looking for newer versions than theirs.
$(STAMP): requirements.lock pyproject.toml
	@python=''; for candidate in "$(PYTHON)" python3.11 python3 python; do \
	  [ -n "$$candidate" ] || continue; \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
	    python="$$candidate"; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "error: Python 3.11 is needed (maraboupy has no wheels for 3.12 or later), found $$(python3 --version 2>&1). Install it, or name it: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; fi; \
	echo "setting up $(VENV) with $$("$$python" --version): some minutes, once" >&2; \
	"$$python" -m venv --clear $(VENV) || { \
	  echo "error: $$python has no venv module: install it (Debian: python3.11-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'from tasks.core.search.ladder import warm_up; warm_up()'
	@touch $@

$(VENV)/.bench: $(STAMP) requirements-bench.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-bench.lock
	@touch $@
