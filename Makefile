# Two commands do everything on a fresh machine: `make demo` and `make test`.
# pip's index settings (PIP_INDEX_URL, PIP_FIND_LINKS, …) pass through from the environment.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt

.PHONY: demo test slow check hooks clean

demo: $(VENV)/.runtime  ## set up, then screen, fine-tune and evaluate with the bundled model
	$(BIN)/forgetfilter demo --output-dir demo-run

test: $(VENV)/.dev  ## the whole suite, offline, under 8 minutes on two cores
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile

slow: $(VENV)/.dev  ## what takes longer
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

hooks: $(VENV)/.dev  ## run `make check`'s style part before each commit
	$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) demo-run .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
