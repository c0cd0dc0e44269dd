# The two commands: `make pipeline` and `make test`. Everything else: `make help`.
# The first call creates .venv from requirements.lock and fetches the data; later calls skip both.

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
ARGS   ?=
PORT   ?= 5000

export DVC_NO_ANALYTICS := 1
export DVC_SITE_CACHE_DIR := $(CURDIR)/$(STATE)/dvc
export TOKENIZERS_PARALLELISM := false

INSTALLED := $(VENV)/.installed
# The stamp stands for "the files that data.dvc names are in data/"; a missing folder makes it stale.
FETCHED := $(STATE)/data.stamp

.PHONY: help pipeline test enhance ui stack base benchmark lint data lock clean distclean force

help: ## list every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 22

pipeline: $(INSTALLED) $(FETCHED) ## run the whole pipeline, photos to promoted model (CONFIG= SET="key=value ..." STACK=)
	@$(BIN)/python -m pipelines run --config $(CONFIG) --stack $(STACK) $(foreach s,$(SET),--set '$(s)') $(ARGS)

test: $(INSTALLED) $(FETCHED) ## run the tests (ARGS="-k name" narrows them)
	@$(BIN)/python -m pytest $(ARGS)

enhance: $(INSTALLED) ## enhance one photo with the champion model (PHOTO=in.jpg OUT=out.jpg)
	@test -n "$(PHOTO)" -a -n "$(OUT)" || { echo 'which photo, and where to? make enhance PHOTO=in.jpg OUT=out.jpg' >&2; exit 2; }
	@$(BIN)/smartphotocrafter enhance '$(PHOTO)' '$(OUT)' $(ARGS)

ui: $(INSTALLED) ## open the MLflow UI on this machine (PORT=5000)
	@$(BIN)/python -m pipelines ui --port $(PORT)

stack: $(INSTALLED) ## register a stack from configs/stacks and make it active (STACK=local)
	@$(BIN)/python -m pipelines stack --stack $(STACK)

base: $(INSTALLED) $(FETCHED) ## train the tiny base models again (an hour or two)
	@$(BIN)/python -m components.base $(ARGS)

benchmark: $(INSTALLED) $(FETCHED) ## measure the figures the project promises, into reports/benchmarks/main.json
	@$(BIN)/python -m components.evaluation.benchmark $(ARGS)

lint: $(INSTALLED) ## check style with ruff
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

data: $(FETCHED) ## fetch the photos and base models that data.dvc names

lock: $(INSTALLED) ## pin what is installed now into requirements.lock (after editing requirements.in)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.in
	@{ echo '# Every package of the environment, pinned by `make lock`. What is asked for by name is in requirements.in.'; \
	   $(BIN)/python -m pip freeze --all --exclude-editable --exclude pip --disable-pip-version-check \
	   | sed -E '/^(nvidia-|cuda-|triton=)/s/$$/ ; sys_platform == "linux" and platform_machine == "x86_64"/'; \
	 } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean: ## remove reports and caches; runs, models, data and .venv stay
	rm -rf reports build *.egg-info .pytest_cache .ruff_cache $(STATE)/work
	find components pipelines steps tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove all that is not in git: runs, models, fetched data and .venv
	rm -rf $(STATE) $(VENV) data

$(INSTALLED): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on PATH: install Python 3.11 or call make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the pinned dependencies (once; takes a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(FETCHED): data.dvc $(if $(and $(wildcard data/photos),$(wildcard data/base)),,force) | $(INSTALLED)
	@mkdir -p $(STATE)
	@$(BIN)/dvc pull --quiet data.dvc || { echo "dvc pull failed: is the remote reachable? '$(BIN)/dvc remote list' names it, '$(BIN)/dvc pull -v' says more" >&2; exit 1; }
	@touch $@
