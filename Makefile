# Every target creates the environment that it needs, if it does not exist yet.
#   make DEPS=latest test    with the newest versions that pyproject.toml allows, in .venv-latest
#   make DEPS=lowest test    with the oldest versions, in .venv-lowest
#   make PYTHON=python3.12 TORCH=torch==2.12.0 test    with another version of Python or another build of torch
PYTHON ?= python3
DEPS ?= locked
TORCH_locked := torch==2.13.0
TORCH_latest := torch
TORCH_lowest := torch==2.11.0
TORCH ?= $(TORCH_$(DEPS))

ENVIRONMENT := .venv$(if $(filter-out locked,$(DEPS)),-$(DEPS))
BIN := $(ENVIRONMENT)/bin
READY := $(ENVIRONMENT)/.ready
# Modules are compiled when they are first imported. Compiling all of them here takes half a minute.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
UV := $(BIN)/uv pip compile --quiet --config-file requirements/uv.toml --universal --python-version 3.11 \
	--generate-hashes --no-emit-package torch --custom-compile-command "make lock" $(UPGRADE)

# The user's Python settings must not affect the environment.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

# An environment is kept until a dependency changes. It is recreated if PYTHON or TORCH is set to another value than the
# one that it was created with, and it is updated each time if DEPS=latest.
GIVEN := $(foreach name,PYTHON TORCH,$(if $(filter-out file,$(origin $(name))),$($(name))))
ifneq ($(filter-out $(shell cat $(ENVIRONMENT)/.made-with 2>/dev/null),$(GIVEN)),)
CLEAR := --clear
.PHONY: $(READY)
else ifeq ($(DEPS),latest)
.PHONY: $(READY)
endif

.DEFAULT_GOAL := help
.PHONY: help run reproduce-figure test torture torture-store rehearse bench check docs format lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

run: $(READY) ## Train the small chain on real text and print a table of the results (a few minutes on two cores)
	$(BIN)/tfscale run

SCALE ?= tiny
SEEDS ?= 3
reproduce-figure: $(READY) ## Compare the chain with its baselines: figure, table, verdicts (about 15 minutes on two cores; SCALE=small: an hour)
	$(BIN)/tfscale compare --baseline scratch --run-missing schedule=progressive_$(SCALE) seeds=$(SEEDS) launcher.parallel=2

test: $(READY) ## Run the tests; DEPS=latest, DEPS=lowest: with the newest or oldest dependencies
	$(BIN)/python requirements/versions.py
	$(BIN)/python -m pytest -n 3 --dist worksteal

N ?= 20
torture: $(READY) ## Kill a running chain N times (default 20) and check that nothing is lost: make torture N=200
	$(BIN)/python tests/faults/torture.py $(N)

KILLS ?= 3
torture-store: $(READY) ## Kill two machines that share a store KILLS times each (default 3) and check that nothing is lost or doubled
	$(BIN)/python tests/faults/machines.py $(KILLS)

# Context, batch and update are set for a CPU with 24 GiB of memory; sizes, growth and checkpoints are those of a real run.
rehearse: $(READY) ## Rehearse the chain from 124M to 1.4B on this CPU, three steps per stage (20 GiB of memory, 45 GB of disk)
	$(BIN)/tfscale run schedule=progressive_1b4 schedule.rehearse=true growth=exact launcher.device=cpu \
		launcher.update=in_backward optim.clip=0 model.context=128 optim.batch_tokens=128

# The largest growth needs 20 GB of disk in the folder TMPDIR.
bench: $(READY) ## Measure speed and memory against other implementations and the targets (about 20 minutes on two idle cores)
	$(BIN)/python -m benchmarks --out docs/measurements

check: $(READY) ## Check format, lint, types and import layers, and run the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 3 --dist worksteal

docs: $(READY) ## Build the documentation into build/docs; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q -E docs build/docs

format: $(READY) ## Format the code and apply lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(READY) ## Write requirements/*.txt from pyproject.toml; UPGRADE=--upgrade uses the newest versions
	$(UV) requirements/build.in -o requirements/build.txt
	$(UV) --extra corpus --extra dev pyproject.toml -o requirements/locked.txt
	$(UV) --extra corpus --extra dev --resolution lowest-direct pyproject.toml -o requirements/lowest.txt

clean: ## Remove the environments and keep the runs
	rm -rf .venv .venv-latest .venv-lowest

# torch is installed separately, so that one variable selects the build; `pip check` fails if a lock file is outdated.
$(READY): pyproject.toml $(wildcard requirements/*.txt)
	$(if $(TORCH_$(DEPS)),,$(error DEPS=$(DEPS): must be locked, latest or lowest))
	$(PYTHON) -m venv $(CLEAR) $(ENVIRONMENT)
	$(if $(filter latest,$(DEPS)),$(install_newest),$(install_pinned))
	$(BIN)/python -m pip check --disable-pip-version-check
	@echo "$(PYTHON) $(TORCH)" >$(ENVIRONMENT)/.made-with
	@touch $(READY)

define install_pinned
$(PIP) --no-deps --require-hashes -r requirements/build.txt
	$(PIP) --no-deps --require-hashes --no-build-isolation -r requirements/$(DEPS).txt
	$(PIP) "$(TORCH)"
	$(PIP) --no-deps --no-build-isolation --editable .
endef

define install_newest
$(PIP) --upgrade --upgrade-strategy eager "$(TORCH)" --editable ".[corpus,dev]"
endef
