# The environment is .venv (VENV=... puts it elsewhere); a target installs what it needs, once, with the pinned versions.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= auto
EXECUTED := build/notebooks

# One thread per process: the parts are small, and the tests run one process per core.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint format notebooks bench verify clean

help:  ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /\1\t/' | expand -t 12

demo: $(VENV)/.with-core  ## fit the Mauna Loa CO2 record, fill its gaps, forecast years ahead: forecast.csv, forecast.png
	$(BIN)/ctdyn demo

test: $(VENV)/.with-test  ## the test-suite, the doctests included
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(VENV)/.with-dev  ## ruff, pyright, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.with-dev  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(VENV)/.with-notebooks  ## execute the guide; the executed notebooks go to build/notebooks
	mkdir -p $(EXECUTED)
	for source in notebooks/*.py; do \
	  $(BIN)/jupytext --quiet --to ipynb --output $(EXECUTED)/$$(basename $$source .py).ipynb $$source || exit 1; \
	done
	$(BIN)/python -m pytest --nbmake --overwrite --nbmake-timeout=600 $(EXECUTED)

bench: $(VENV)/.with-bench  ## time the solvers beside their peers
	for script in recipes/bench/*.py; do $(BIN)/python $$script --quick || exit 1; done

verify: lint notebooks test  ## everything that .ci/run asks for, in the environment that is there

clean:  ## remove what the other targets made
	rm -rf $(VENV) build dist forecast.csv forecast.png

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The empty file remembers that this extra was installed after the last change of the requirements.
$(VENV)/.with-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.$(if $(filter core,$*),,[$*])'
	touch $@
