# remask: `make help` lists what can be done. Everything runs from this folder and in its environment, .venv.
PYTHON ?= python3.11
PORT ?= 5000
SHELL := /bin/bash
BIN := .venv/bin
READY := .venv/ready
SMOKE := build/smoke 50%
BUDGET := $(BIN)/python -c "from remask.pipeline.stages import duration_table; print(duration_table())"
# what was chosen under a name of params.yaml, and the same file of each
CHOSEN = $$($(BIN)/python -c "from remask.pipeline.stages import read_params; print(*read_params()['$(1)'])")

export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg
export DVC_NO_ANALYTICS ?= 1
export MLFLOW_DISABLE_TELEMETRY ?= true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help env pull commit look readme repro repro-all remedies record text answers ablations fair train train-text train-answers exactness sudoku train-sudoku test test-all smoke faults mutations site ui lab bench clean

help: ## list what can be done
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(READY) ## make the environment; a torch that is already in .venv is kept

# MLflow does not escape a percent sign in the path of its own files, and would fail after all the sampling.
$(READY): requirements.lock pyproject.toml
	@case "$(CURDIR)" in *%*) echo "remask: MLflow cannot run from a folder with % in its name ($(CURDIR)); rename it, then run make again" >&2; exit 1;; esac
	@command -v $(PYTHON) >/dev/null || { echo "remask: there is no $(PYTHON); install Python 3.11 or name yours: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "remask: $(PYTHON) cannot make an environment; install its venv module" >&2; exit 1; }
	@echo "environment: $$(grep -c == requirements.lock) packages into .venv, about 3 minutes the first time (log: .venv/install.log)"
	@set -o pipefail; \
	grep -v '^torch==' requirements.lock > .venv/wanted.txt; \
	own=$$($(BIN)/python -c 'import importlib.util as u; print(u.find_spec("torch") is not None)'); \
	{ $(BIN)/python -m pip install --progress-bar off --require-hashes --no-deps -r .venv/wanted.txt && \
	  { test $$own = True || $(BIN)/python -m pip install --progress-bar off $$(grep '^torch==' requirements.lock); }; } 2>&1 | tee .venv/install.log | \
	awk '/^(Collecting|Requirement already)/{if (++n % 40 == 0) {print "  " n " packages found"; fflush()}} /^Installing/{print "  installing them"; fflush()}' || \
	{ grep -i error .venv/install.log | tail -n 1 >&2; echo "remask: the packages could not be installed (network? disk?); see .venv/install.log, then run make again" >&2; exit 1; }
	@$(BIN)/python -m pip install -e . --no-build-isolation --no-deps >> .venv/install.log 2>&1 || \
	{ echo "remask: the project itself could not be installed; see .venv/install.log" >&2; exit 1; }
	@touch $@

pull: $(READY) ## get the data, the trained networks and what training taught from the store in this repository
	@$(BIN)/remask profile > /dev/null
	@$(BIN)/python -c "from remask.pipeline.store import pull; pull()"

commit: pull ## after a change that trains the same: record that what is in the store is up to date
	@$(BIN)/dvc commit -f data.dvc $$($(BIN)/python -c "from remask.pipeline.store import pinned_stages; print(*pinned_stages())")
	@$(BIN)/dvc push -q -r store data.dvc $$($(BIN)/python -c "from remask.pipeline.store import pinned_stages; print(*pinned_stages())")
	@git status --short dvc.lock .dvcstore

look: $(READY) ## show the stored comparison of plans; nothing is sampled
	@$(BIN)/python docs/readme.py look

readme: pull ## write the figures of README.md from stored results
	@$(BIN)/python docs/readme.py

repro: pull ## compare the methods on bubble diagrams (laptop profile)
	@$(BIN)/dvc repro compare
	@for d in $(call CHOSEN,datasets); do cat reports/$$d-main/comparison.md || exit; done
	@echo "what each stage took when it was last run:" && $(BUDGET)
	@echo "remask: the comparison is reports/DATASET-main/comparison.md; make ui shows it in MLflow"

remedies: pull ## what each change does to the published v2 method, on validation seeds
	@$(BIN)/dvc repro compare_remedies diagnosis
	@echo "remask: the table is reports/DATASET-remedies/comparison.md, the diagnosis reports/notebooks/diagnosis-DATASET.ipynb"

# Of one data set: make record DATA=mine. Sample again: make record SAMPLE=1.
RECORDED = $(if $(DATA),$(DATA),$(call CHOSEN,datasets))

record: pull ## judge the stored samples of all methods at five seeds of 1,000 (SAMPLE=1: sample them again)
	@for d in $(RECORDED); do \
	  samples=$$($(BIN)/dvc stage list --names-only | grep "^sample_record@$$d-"); \
	  $(if $(SAMPLE),$(BIN)/dvc repro --force --single-item $$samples &&,) \
	  $(BIN)/dvc repro $$samples heldout@$$d-record && $(BIN)/dvc repro --force --single-item record@$$d-record && \
	  cat reports/$$d-record/agreement.md reports/$$d-record/fidelity.md || exit; done
	@echo "remask: tables and pictures are in reports/DATASET-record; make ui shows the methods in MLflow"

text: pull ## the policies on characters: which tokens are remasked, and what that is worth
	@$(BIN)/dvc repro compare_text detect rank
	@echo "remask: the comparison is reports/text/comparison.md; make ui shows it in MLflow, remask demo text shows one live"

answers: pull ## questions and answers: which score decides what is remasked, and what that is worth
	@$(BIN)/dvc repro compare_answers
	@for q in $(call CHOSEN,quizzes_asked); do cat reports/$$q-answers/comparison.md || exit; done
	@echo "remask: the repair of injected errors is in reports/QUIZ-repair/repair.md; make ui shows the runs"

ablations: pull ## one thing changed at a time: the head's training, steps, blocks, temperature, guidance, the end sign
	@$(BIN)/dvc repro compare_ablations
	@for q in $(call CHOSEN,quizzes_asked); do cat reports/$$q-answers-ablated/comparison.md || exit; done

fair: pull ## scores that were trained alike, each method with its best settings, beside a longer training
	@$(BIN)/dvc repro compare_fair
	@for q in $(call CHOSEN,quizzes_asked); do \
	  test -f reports/$$q-fair.md || $(BIN)/dvc repro --force --single-item compare_fair@$$q || exit; \
	  cat reports/$$q-fair.md || exit; done
	@echo "remask: the tables are reports/QUIZ-fair.md; make ui shows the methods"

repro-all: pull ## every domain
	@$(BIN)/dvc repro
	@echo "what each stage took when it was last run:" && $(BUDGET)

exactness: pull ## every method with an exact denoiser: chains and 4x4 Sudoku
	@$(BIN)/dvc repro exactness
	@echo "remask: the tables are reports/exactness/exactness.md, the pictures beside it; make ui shows the curves"

sudoku: pull ## 9x9 puzzles solved against evaluations, with a trained network
	@$(BIN)/dvc repro sudoku
	@echo "remask: the table is reports/sudoku/sudoku.md; make ui shows the curves"

# A training that was stopped goes on; one that is done, or that was another one, starts afresh.
train: pull ## train the networks of the plans again
	@$(BIN)/dvc repro prepare && $(BIN)/dvc repro --force --single-item train

train-text: pull ## train the networks of the texts again
	@$(BIN)/dvc repro corpus && $(BIN)/dvc repro --force --single-item train_text train_detector

train-answers: pull ## train the networks that answer again
	@$(BIN)/dvc repro tasks && $(BIN)/dvc repro --force --single-item train_answers train_ups

train-sudoku: pull ## train the network of the puzzles again
	@$(BIN)/dvc repro puzzles && $(BIN)/dvc repro --force --single-item train_sudoku

test: $(READY) ## everything continuous integration runs
	@echo "== ruff"      && $(BIN)/ruff check -q .
	@echo "== types"     && $(BIN)/mypy
	@echo "== notebooks" && $(BIN)/nbdev_test --n_workers 2
	@echo "== tests"     && $(BIN)/python -m pytest -n 2 --dist loadfile
	@$(MAKE) --no-print-directory smoke

test-all: test ## and what takes longer: every command of README.md
	@$(BIN)/python -m pytest -m slow

faults: $(READY) ## damage ten thousand inputs, kill stages, and write the counts into docs/faults.json
	@$(BIN)/python -m pytest -m "slow or not slow" tests/test_faults.py --deselect tests/test_faults.py::test_the_figures_of_the_documentation_are_of_a_long_form_without_faults
	@cp reports/faults.json docs/faults.json && echo "remask: the counts are in docs/faults.json"

mutations: $(READY) ## change one place of a module at a time, in eleven of core, lm and evaluate, and write what noticed it into docs/mutations.json
	@$(BIN)/python tests/mutations.py docs/mutations.json

# A clone with the working tree laid over it, so that nothing here is touched and nothing uncommitted is missed. Two
# lanes, one a core: DVC runs one stage at a time, and at this size a stage is mostly imports. The lock, which is long
# and read and written at every stage, says nothing that holds at this size. The folder's name is one that has broken tools.
LANE_plans := compare compare_remedies record diagnosis effects exactness
LANE_others := compare_text detect rank compare_answers compare_ablations compare_fair llada sudoku
LANES := plans others

smoke: $(READY) ## every stage of every domain end to end with tiny sizes
	@echo "== smoke"
	@rm -rf "$(SMOKE)" && $(MAKE) --no-print-directory -j2 $(LANES:%=lane-%)
	@rm -rf "$(SMOKE)"

lane-%: export LOKY_MAX_CPU_COUNT := 1
lane-%: $(READY)
	@mkdir -p "$(SMOKE)" && git clone -q . "$(SMOKE)/$*"
	@git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -cf - -T - 2>/dev/null | tar xf - -C "$(SMOKE)/$*"
	@cd "$(SMOKE)/$*" && remask profile smoke && rm dvc.lock && dvc pull -q -r store data.dvc && dvc repro $(LANE_$*)

# The pages are written in the environment of the project, and laid out in one of their own, so that .venv stays small.
SITE ?= _site
SITE_BIN := .venv-site/bin

site: $(READY) .venv-site/ready ## build the documentation into _site/
	@$(BIN)/python docs/build.py
	@PYTHONPATH=docs NO_MKDOCS_2_WARNING=1 $(SITE_BIN)/mkdocs build -q -f build/site/mkdocs.yml -d "$(abspath $(SITE))"
	@echo "remask: read it by: $(BIN)/python -m http.server -b 127.0.0.1 -d $(SITE) 8000, then http://127.0.0.1:8000"

.venv-site/ready: docs/requirements.txt
	@test -x $(SITE_BIN)/python || $(PYTHON) -m venv .venv-site || { echo "remask: $(PYTHON) cannot make an environment; install its venv module" >&2; exit 1; }
	@$(SITE_BIN)/python -m pip install -q --require-hashes --no-deps -r $< > .venv-site/install.log 2>&1 || \
	{ grep -i error .venv-site/install.log | tail -n 1 >&2; echo "remask: what draws the pages could not be installed (network? disk?); see .venv-site/install.log, then run make site again" >&2; exit 1; }
	@touch $@

# the first port from $(1) on that nothing listens at
FREE_PORT = $(BIN)/python -c "import socket; print(next(p for p in range($(1), $(1) + 100) if socket.socket().connect_ex(('127.0.0.1', p))))"

ui: $(READY) ## show the results in MLflow
	@test -f mlruns/mlflow.db || { echo "remask: there are no results yet; run make repro, or make look for the stored ones" >&2; exit 1; }
	@port=$$($(call FREE_PORT,$(PORT))); \
	test $$port = $(PORT) || echo "remask: port $(PORT) is taken, $$port is not"; \
	$(BIN)/python -c "import sqlite3; \
	[print(f'{n}: http://127.0.0.1:$$port/#/experiments/{i}/runs?viewStateShareKey=comparison') for i, n in \
	sqlite3.connect('mlruns/mlflow.db').execute('select experiment_id, name from experiments where experiment_id > 0')]; print('Ctrl-C ends')"; \
	mkdir -p build; trap 'echo "remask: stopped"; exit 0' INT; \
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db --artifacts-destination mlruns/artifacts --host 127.0.0.1 --port $$port --workers 1 2> build/ui.log || \
	{ tail -n 1 build/ui.log >&2; echo "remask: MLflow could not serve; build/ui.log says more" >&2; exit 1; }

lab: $(READY) ## open the notebooks in JupyterLab; another port is taken where 8888 is not free, Ctrl-C ends
	@exec $(BIN)/jupyter lab nbs --ip 127.0.0.1 --ServerApp.port_retries=100 --ServerApp.answer_yes=True

bench: $(READY) ## measure speed and memory
	@$(BIN)/remask-stage bench && echo "remask: the figures are in reports/notebooks/bench.ipynb"

clean: ## remove caches and leftovers; results, networks and .venv stay
	@rm -rf "$(SMOKE)" _proc _docs _site build/site .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	@find nbs remask tests $(wildcard data build reports) \( -name __pycache__ -o -name .ipynb_checkpoints -o -name '*.part' -o -name '*.part.ipynb' \) -prune -exec rm -rf {} +
