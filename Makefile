# remask: `make help` lists what can be done.
PYTHON ?= python3.11
PORT ?= 5000
SHELL := /bin/bash
BIN := .venv/bin
STAMP := .venv/installed
DVC := $(BIN)/dvc

export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help repro repro-all test smoke train ui lab bench clean env data

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## make the environment (.venv); a torch that is already in it is kept

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "remask: no $(PYTHON) here; install Python 3.11 or name yours: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "remask: $(PYTHON) cannot make an environment; install its venv module (python3.11-venv)" >&2; exit 1; }
	@echo "environment: $$(grep -c == requirements.lock) packages into .venv (about 3 minutes the first time; details in .venv/install.log)"
	@set -o pipefail; keep=$$($(BIN)/python -c 'import importlib.util as u; print("^torch==" if u.find_spec("torch") else "^$$")'); \
	grep -vE "$$keep" requirements.lock > .venv/requirements.txt; \
	$(BIN)/python -m pip install --progress-bar off -r .venv/requirements.txt 2>&1 | tee .venv/install.log | \
	awk '/^(Collecting|Requirement already)/{n++; if (n % 20 == 0) {printf "  %d packages resolved\n", n; fflush()}} /^Installing/{print "  installing"; fflush()}' \
	|| { tail -n 3 .venv/install.log >&2; echo "remask: installing failed, see .venv/install.log; mend that (network? disk?) and run make again" >&2; exit 1; }
	@$(BIN)/python -m pip install -q -e . --no-build-isolation --no-deps >> .venv/install.log 2>&1 || { tail -n 3 .venv/install.log >&2; exit 1; }
	@touch $@

data: $(STAMP) ## get the data and the trained networks from the store in this repository
	@$(DVC) pull -q 2>.venv/pull.log || { tail -n 3 .venv/pull.log >&2; echo "remask: some data is not in the store; \`dvc status\` names it, \`make repro\` makes it" >&2; exit 1; }

repro: $(STAMP) ## the bubble-diagram comparison on the laptop profile, from data to tables
	@$(BIN)/python nbs/experiments/run.py repro bubble-diagrams

repro-all: $(STAMP) ## every domain
	@$(BIN)/python nbs/experiments/run.py repro

train: $(STAMP) ## train the networks again
	@$(BIN)/python nbs/experiments/run.py train

smoke: $(STAMP) ## every stage end to end with tiny sizes
	@$(BIN)/python nbs/experiments/run.py smoke

test: $(STAMP) ## everything continuous integration runs
	@echo "== ruff";       $(BIN)/ruff check -q .
	@echo "== notebooks";  $(BIN)/nbdev_test --n_workers 2
	@echo "== tests";      $(BIN)/python -m pytest
	@echo "== smoke";      $(MAKE) --no-print-directory smoke

ui: $(STAMP) ## open the results in MLflow
	@test -f mlruns/mlflow.db || { echo "remask: no results yet; run make repro" >&2; exit 1; }
	@echo "http://127.0.0.1:$(PORT)/#/experiments/1/runs?viewStateShareKey=comparison"
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db \
	--artifacts-destination mlruns/artifacts --host 127.0.0.1 --port $(PORT) --workers 1

lab: $(STAMP) ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab nbs

bench: $(STAMP) ## measure speed and memory
	@$(BIN)/python nbs/experiments/run.py bench

clean: ## remove what can be made again (not .venv, mlruns, or the trained networks)
	@rm -rf build/smoke reports/smoke .pytest_cache .ruff_cache .hypothesis _proc _docs *.egg-info
	@find nbs remask tests -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
