# Every target makes the environment it needs, once. `make PYTHON=python3.12 TORCH=... test` for other versions.
PYTHON ?= python3
TORCH ?= torch>=2.11,<2.14
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help run reproduce-figure test torture rehearse bench check docs format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

run: $(READY) ## train the small chain on real text and print its table (a few minutes on two cores)
	$(BIN)/tfscale run

SCALE ?= tiny
SEEDS ?= 1
reproduce-figure: $(READY) ## the chain beside its baselines: figure, table, verdicts (below 20 minutes on two cores; SCALE=small SEEDS=3: an hour)
	$(BIN)/tfscale compare --baseline scratch --run-missing schedule=progressive_$(SCALE) seeds=$(SEEDS) launcher.parallel=2

test: $(READY) ## the tests
	$(BIN)/python -m pytest -n 2

N ?= 20
torture: $(READY) ## kill a running chain N times and check that nothing is lost: make torture N=200
	$(BIN)/python tests/faults/torture.py $(N)

# Context, batch and update are what a CPU with 24 GiB of memory can take; sizes, growth and checkpoints are the real ones.
rehearse: $(READY) ## the chain 124M to 1.4B on this CPU, three steps a stage (20 GiB of memory, 45 GB of disk)
	$(BIN)/tfscale run schedule=progressive_1b4 schedule.rehearse=true growth=exact launcher.device=cpu \
		launcher.update=in_backward optim.clip=0 model.context=128 optim.batch_tokens=128

# 20 GB of disk for the largest growth; TMPDIR names where.
bench: $(READY) ## speed and memory beside the alternatives and the machine's peak (about 20 minutes on two quiet cores)
	$(BIN)/tfscale bench --out docs/measurements

check: $(READY) ## format, lint, types, import layers, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2

docs: $(READY) ## the documentation, into build/docs; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q -E docs build/docs

format: $(READY) ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment; runs stay
	rm -rf .venv

# torch comes first and alone, so that one variable chooses its build.
$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[corpus,dev]"
	@touch $(READY)
