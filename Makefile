# Bare `make` lists the verbs. Each one works alone on a fresh machine: what it needs is installed into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup fmt lint types test slow bench golden check demo clean

help:  ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## create .venv with everything that development needs

$(READY): pyproject.toml constraints.txt
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

bench: $(READY)  ## measure what tracing costs, next to the bare step
	@$(BIN)/python -m pytest -m bench -s tests/bench

golden: $(READY)  ## rewrite the pinned pictures and texts; look at the diff
	@$(PYTEST) --snapshot-update

check: lint types test  ## all that has to be in order before a commit

demo: $(READY)  ## train a small CNN on digits and watch it live (without a terminal: print the report)
	@$(BIN)/tensorscope demo

clean:  ## remove what the other verbs have made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis runs dist
