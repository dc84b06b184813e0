# Bare `make` lists the verbs. Each one works alone on a fresh machine: what it needs is installed into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .venv-bench
PEERS_READY := $(PEERS)/.ready
THREADS ?= 1
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup fmt lint types test slow bench golden check demo clean

help:  ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## create .venv with everything that development needs

$(READY): pyproject.toml constraints.txt hatch_build.py tensorscope/live/kernel.cpp
	@echo "setting up $(VENV) (torch is about 200 MB; a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

fmt: $(READY)  ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lint: $(READY)  ## check style
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: $(READY)  ## check types (mypy, strict)
	@$(BIN)/mypy

test: $(READY)  ## run the fast tests
	@$(PYTEST) -n 2

slow: $(READY)  ## run the long tests: whole trainings, real terminals, long searches
	@$(PYTEST) -m slow

bench: $(PEERS_READY)  ## measure cost, storage and the viewer's start, next to the peers (about 20 minutes; rest your machine)
	@OMP_NUM_THREADS=$(THREADS) $(PEERS)/bin/python -m pytest -p no:cacheprovider -m bench -s tests/bench

$(PEERS_READY): $(READY)
	@echo "setting up $(PEERS), so that the peers stay out of $(VENV) (a few minutes the first time)"
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@echo '*' > $(PEERS)/.gitignore
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torchlens wandb tensorboard \
		|| echo "the peers could not be installed: we are measured alone"
	@touch $(PEERS_READY)

golden: $(READY)  ## rewrite the pinned pictures and texts; look at the diff
	@$(PYTEST) --snapshot-update

check: lint types test  ## all that has to be in order before a commit

demo: $(READY)  ## train a small CNN on digits and watch it live (without a terminal: print the report)
	@$(BIN)/tensorscope demo

clean:  ## remove what the other verbs have made
	rm -rf $(VENV) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .hypothesis runs dist
