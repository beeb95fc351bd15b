# Everything works on a fresh clone with nothing else typed.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.umdseg-setup

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage lint bench soak clean

help:
	@echo "make setup | demo | test | lint | bench | soak | clean    (PYTHON=$(PYTHON))"

setup: $(STAMP)

# the stamp is written last, so a setup that was cut off starts again
$(STAMP): pyproject.toml constraints.txt requirements-nodeps.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "umdseg needs Python 3.11 or newer; try make setup PYTHON=python3.11" >&2; exit 1; }
	@echo "setting up $(VENV): downloads and installs for some minutes"
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet torch==2.13.0 -c constraints.txt
	$(PY) -m pip install --quiet -c constraints.txt -e ".[dev]"
	$(PY) -m pip install --quiet --no-deps -r requirements-nodeps.txt
	@$(PY) -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torchvision") is not None)' \
	  || $(PY) -c 'import torchvision' \
	  || { echo "torchvision is installed but does not import (see above); umdseg does not need it:" \
	            "$(PY) -m pip uninstall torchvision" >&2; exit 1; }
	@touch $@

demo: setup
	$(PY) train.py experiment=demo

# one thread per worker: two workers with two threads each are slower on two cores
test: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

# the same with what of the package it runs; a quarter slower
coverage: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --cov=umdseg --cov-report=term --cov-fail-under=85

lint: setup
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

bench: setup
	$(PY) benchmarks/run.py

soak: setup
	$(PY) -m pytest -m soak tests

clean:
	rm -rf $(VENV) runs outputs multirun wandb build dist .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
