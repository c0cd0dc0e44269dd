# The two commands: `make pipeline` and `make test`. Everything else: `make help`.
# The first call creates .venv from requirements.lock and fetches the data; later calls skip both. What only tests and
# checks need, requirements-dev.lock, comes with the first call of a target that wants it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STATE  := .spc
CONFIG ?= configs/local.yaml
STACK  ?= local
SET    ?=
PHOTO  ?=
OUT    ?=
FOLDER ?=
ARGS   ?=
PORT   ?= 5000
WORKERS ?= 2
TO     ?=
VERSIONS ?=
REASON ?=
TARGET ?= photo
DURATION ?= 60
CRON   ?=
CONTEXT ?=
REPOSITORY ?=
BRANCH ?= main

# What a user gives is data: recipes take it from the environment, where $(RUN) puts {PHOTO} and the like into the words
# of a command, and no recipe holds $(PHOTO). make itself would expand the variables of its command line to export them,
# and so run what is in $(shell ...): here each becomes the text that was given.
$(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),\
  $(eval override $(name) := $$(value $(name)))$(eval export $(name))))
export PYTHON CONFIG STACK SET PHOTO OUT FOLDER ARGS PORT WORKERS TO VERSIONS REASON TARGET DURATION CRON CONTEXT REPOSITORY BRANCH
RUN = $(BIN)/python -S -m components.arguments
STYLE = $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-logo

export DVC_NO_ANALYTICS := 1
export DVC_SITE_CACHE_DIR := $(CURDIR)/$(STATE)/dvc
export TOKENIZERS_PARALLELISM := false

INSTALLED := $(VENV)/.installed
DEVELOPING := $(VENV)/.developing
# An environment knows its path by heart: "force" where it lies elsewhere than where it was made, so that it is made anew.
MOVED := $(shell made="$$(sed -nE 's/^command = .* -m venv (--clear )?//p' $(VENV)/pyvenv.cfg 2>/dev/null)"; test -z "$$made" || test "$$made" -ef $(VENV) || echo force)
# The stamp stands for "the files that data.dvc names are in data/"; a missing folder makes it stale.
FETCHED := $(STATE)/data.stamp

.PHONY: help pipeline test test-files enhance tables serve demo champion rollback browser ui stack doctor check-state plan retrain schedule unschedule test-cluster base benchmark benchmark-quality benchmark-data benchmark-train benchmark-serving benchmark-enhance benchmark-orchestration benchmark-registry benchmark-start benchmark-scale ablation pictures docs check lint sbom fuzz data lock clean distclean force

help: ## list every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 22

pipeline: $(INSTALLED) $(FETCHED) ## run the whole pipeline, photos to promoted model (CONFIG= SET="key=value ..." STACK=)
	@$(RUN) $(BIN)/smartphotocrafter run --config={CONFIG} --stack={STACK} --set={SET:each} {ARGS:words}

test: $(DEVELOPING) $(FETCHED) ## run the tests in WORKERS=2 processes (0: in this one; ARGS="-k name" narrows them)
	@# A file stays in one process: its tests share what is slow to make.
	@$(RUN) $(BIN)/python -m pytest --numprocesses={WORKERS} --dist loadfile {ARGS:words}

test-files: $(INSTALLED) ## try to read every photo of a folder, and count by kind what is right and wrong (FOLDER=)
	@test -n "$$FOLDER" || { echo 'which photos? make test-files FOLDER=path' >&2; exit 2; }
	@$(RUN) $(BIN)/python -m tools.photo_files -- {FOLDER}

enhance: $(INSTALLED) ## enhance a photo or a folder with the champion model (PHOTO=in.jpg OUT=out.jpg ARGS="--compare")
	@test -n "$$PHOTO" && test -n "$$OUT" || { echo 'which photo, and where to? make enhance PHOTO=in.jpg OUT=out.jpg' >&2; exit 2; }
	@$(RUN) $(BIN)/smartphotocrafter enhance {ARGS:words} -- {PHOTO} {OUT}

tables: $(INSTALLED) $(FETCHED) ## the paper's four tables for registered versions (VERSIONS="enhance=champion other=2")
	@$(RUN) $(BIN)/smartphotocrafter tables --config={CONFIG} --stack={STACK} --set={SET:each} --version={VERSIONS:each}

ablation: $(INSTALLED) $(FETCHED) ## no RL, RL without r_photo and full from the same stage II, compared
	@$(RUN) $(BIN)/smartphotocrafter ablation --config={CONFIG} --stack={STACK} --set={SET:each}

serve: $(INSTALLED) ## serve the champion over HTTP (ARGS="--port 8080 --max-pixels ..."; see --help)
	@$(RUN) $(BIN)/smartphotocrafter serve {ARGS:words}

demo: $(INSTALLED) ## a web page to drop photos into, on http://127.0.0.1:8080 (ARGS="--port ...")
	@$(RUN) $(BIN)/smartphotocrafter demo {ARGS:words}

champion: $(INSTALLED) ## say who is champion; finish what was interrupted, renew a damaged copy (STACK=)
	@$(RUN) $(BIN)/smartphotocrafter champion --stack={STACK}

rollback: $(INSTALLED) ## make the previous champion champion again (TO=version REASON="why" STACK=)
	@$(RUN) $(BIN)/smartphotocrafter rollback --stack={STACK} --to={TO:optional} --reason={REASON:optional}

browser: $(DEVELOPING) ## install a headless Chromium for the tests of the pages
	@command -v chromium chromium-browser google-chrome >/dev/null || $(BIN)/python -m playwright install chromium-headless-shell

ui: $(INSTALLED) ## open MLflow's pages (PORT=5000) and ZenML's dashboard (port 8237) on this machine
	@$(RUN) $(BIN)/smartphotocrafter ui --port={PORT}

stack: $(INSTALLED) ## register a stack from configs/stacks and make it active (STACK=local)
	@$(RUN) $(BIN)/smartphotocrafter stack --stack={STACK}

doctor: $(INSTALLED) ## check what a run on a stack needs and say what to do about faults (STACK= CONFIG=)
	@$(RUN) $(BIN)/smartphotocrafter doctor --config={CONFIG} --stack={STACK} --set={SET:each}

check-state: $(INSTALLED) ## read all that lies in .spc, and say what is damaged and the way back
	@$(RUN) $(BIN)/smartphotocrafter check-state

plan: $(INSTALLED) ## memory, operations and hours of every stage, of configs/gpu.yaml or CONFIG (ARGS="--gpu H100-80G --count 8")
	@$(RUN) $(BIN)/smartphotocrafter plan --config=$(if $(filter file,$(origin CONFIG)),configs/gpu.yaml,{CONFIG}) {ARGS:words}

retrain: $(INSTALLED) ## let the champion go on learning if data, code or settings changed (ARGS=--force)
	@$(RUN) $(BIN)/smartphotocrafter retrain --config={CONFIG} --stack={STACK} --set={SET:each} {ARGS:words}

schedule: $(INSTALLED) $(FETCHED) ## retrain on a schedule, UTC (CRON="0 3 * * 1"; on a cluster REPOSITORY= BRANCH=)
	@test -n "$$CRON" || { echo 'when? make schedule CRON="0 3 * * 1"  (minute hour day month weekday, UTC)' >&2; exit 2; }
	@$(RUN) $(BIN)/smartphotocrafter schedule --cron={CRON} --config={CONFIG} --stack={STACK} --set={SET:each} --repository={REPOSITORY:optional} --branch={BRANCH}

unschedule: $(INSTALLED) ## end the scheduled retraining; a run that is under way goes on
	@$(RUN) $(BIN)/smartphotocrafter unschedule --stack={STACK}

test-cluster: $(DEVELOPING) $(FETCHED) ## run pipelines in pods: on an emulated cluster, or on a real one (CONTEXT=)
	@SPC_TEST_CONTEXT="$$CONTEXT" $(RUN) $(BIN)/python -m pytest tests/cluster -m '' {ARGS:words}

base: $(DEVELOPING) $(FETCHED) ## train the tiny base models from photos (hours; goes on where it was stopped)
	@$(RUN) $(BIN)/python -m tools.base_models {ARGS:words}

benchmark: $(INSTALLED) $(FETCHED) ## measure the figures the project promises, into reports/benchmarks/main.json
	@$(RUN) $(BIN)/python -m benchmarks.main {ARGS:words}

benchmark-quality: $(INSTALLED) $(FETCHED) ## judge the champion on your own photos against a small regression (ARGS="--on FOLDER")
	@$(RUN) $(BIN)/python -m benchmarks.quality {ARGS:words}

benchmark-data: $(INSTALLED) $(FETCHED) ## measure the data layer, into reports/benchmarks/data.json (ARGS="manifest shards ...")
	@$(RUN) $(BIN)/python -m benchmarks.data {ARGS:words}

benchmark-train: $(INSTALLED) $(FETCHED) ## measure the training engines, into reports/benchmarks/train.json
	@$(RUN) $(BIN)/python -m benchmarks.training {ARGS:words}

benchmark-serving: $(INSTALLED) ## measure the server under load, into reports/benchmarks/serving.json
	@$(RUN) $(BIN)/python -m benchmarks.serving {ARGS:words}

benchmark-enhance: $(INSTALLED) $(FETCHED) ## measure full-resolution edits, into reports/benchmarks/enhance.json
	@$(RUN) $(BIN)/python -m benchmarks.enhance {ARGS:words}

benchmark-orchestration: $(INSTALLED) $(FETCHED) ## measure what the orchestration adds to a step, into reports/benchmarks/orchestration.json
	@$(RUN) $(BIN)/python -m benchmarks.orchestration {ARGS:words}

benchmark-registry: $(INSTALLED) ## kill 20 processes at work on the registry 60 times, into reports/benchmarks/registry.json
	@$(RUN) $(BIN)/python -m benchmarks.registry_kills {ARGS:words}

benchmark-start: $(INSTALLED) $(FETCHED) ## measure what commands take to start, into reports/benchmarks/start.json
	@$(RUN) $(BIN)/python -m benchmarks.start {ARGS:words}

benchmark-scale: $(INSTALLED) $(FETCHED) ## measure the stages at a share of the paper's counts, kept in OUT=folder, into reports/benchmarks/scale.json
	@test -n "$$OUT" || { echo 'where may the data be kept? make benchmark-scale OUT=folder' >&2; exit 2; }
	@$(RUN) $(BIN)/python -m benchmarks.scale {ARGS:words} -- {OUT}

pictures: $(DEVELOPING) $(FETCHED) ## the README's pictures, from the champion and the last report
	@$(BIN)/python -m docs.make_pictures

docs: $(DEVELOPING) ## build the documentation as a site, reports/docs/index.html; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml

check: $(DEVELOPING) $(FETCHED) ## lint and the fast tests: before every commit
	@$(STYLE)
	@# Types are checked beside the tests, which often wait; what is wrong with them stands at the end.
	@$(BIN)/mypy >$(STATE)/types.txt 2>&1 & types=$$!; status=0; \
	  $(RUN) $(BIN)/python -m pytest --numprocesses={WORKERS} --dist loadfile -m 'not (slow or browser or cluster or scale)' {ARGS:words} || status=$$?; \
	  wait $$types || status=$$?; cat $(STATE)/types.txt; exit $$status

lint: $(DEVELOPING) ## check style (ruff), layers (import-linter) and types (mypy)
	@$(STYLE) && $(BIN)/mypy

sbom: $(DEVELOPING) ## list the product's packages with licences as CycloneDX, into reports/sbom.cdx.json
	@$(BIN)/python -m tools.sbom

fuzz: $(DEVELOPING) ## feed mutated input to a parser (TARGET=photo|metadata|answer|request DURATION=60); goes on from fuzz/
	@$(RUN) $(BIN)/python -m tools.fuzz {TARGET} {DURATION} {ARGS:words}

data: $(FETCHED) ## fetch the photos and base models that data.dvc names

lock: $(DEVELOPING) ## pin what the .in files ask for into requirements.lock and requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.in
	@$(BIN)/python -m tools.lock

clean: ## remove reports and caches; runs, models, data and .venv stay
	rm -rf reports build *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache $(STATE)/work
	find components pipelines steps tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove all that is not in git: runs, models, fetched data and .venv
	rm -rf $(STATE) $(VENV) data

$(INSTALLED): requirements.lock pyproject.toml $(MOVED)
	@command -v "$$PYTHON" >/dev/null || { echo "$$PYTHON is not on PATH: install Python 3.11 or call make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -z "$(MOVED)" && $(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "Creating $(VENV)"; "$$PYTHON" -m venv --clear $(VENV) \
	  || { echo "$$PYTHON cannot make $(VENV): it lacks venv or ensurepip (on Debian and Ubuntu: apt install python3.11-venv)" >&2; exit 2; }; }
	@echo "Installing the pinned dependencies (once; takes a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q -q -j 0 -x '/tests?/' $(VENV)/lib || true # some packages hold files that are no Python
	@touch $@

$(DEVELOPING): requirements-dev.lock $(INSTALLED)
	@echo "Installing what tests and checks need beside it (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-dev.lock
	@touch $@

$(FETCHED): data.dvc $(if $(and $(wildcard data/photos),$(wildcard data/base)),,force) | $(INSTALLED)
	@mkdir -p $(STATE)
	@$(BIN)/smartphotocrafter fetch data
	@touch $@
