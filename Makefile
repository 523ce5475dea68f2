# Every target makes the checkout's .venv first where it is missing: Python >= 3.11 and make are all it takes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PEERS  := .venv-peers
OUT    ?= quickstart-output

.DEFAULT_GOAL := help
SHELL := /bin/bash
.PHONY: help install quickstart arviz1 test lint types docs bench bench-peers clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "bayesnn needs Python >= 3.11; name one: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(READY)  ## make the environment (.venv) and nothing else

quickstart: $(READY)  ## the main job: Laplace on real digits, table, figures and one HTML page
	$(BIN)/python -m examples.quickstart --out $(OUT)

arviz1:  ## an environment with ArviZ 1.x for the tests of both generations, where there is a Python >= 3.12
	@.ci/arviz1

test: $(READY) arviz1  ## the whole test suite
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(READY)  ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(READY)  ## mypy
	$(BIN)/mypy

docs: $(READY)  ## build the documentation, warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: $(READY)  ## the benchmarks: ratios to a plain step or forward pass, beside Pyro itself
	$(BIN)/python -m examples.benchmarks.core

$(PEERS)/.ready: $(READY)
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt laplace-torch==0.3 torch torchvision
	touch $@

bench-peers: $(PEERS)/.ready  ## Laplace beside laplace-torch, which gets an environment of its own (.venv-peers)
	$(BIN)/python -m examples.benchmarks.laplace --peer $(PEERS)/bin/python

clean:  ## remove the environment and what was built
	rm -rf $(VENV) $(PEERS) .venv-arviz1 docs/_build .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info $(OUT)
