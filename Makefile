# `make` lists what there is. Every target sets up what it needs from the committed lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check soak bench bench-evidence format lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Perennial needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

demo: $(READY) ## compare six strategies on bundled real data, then serve it live with a dashboard: Ctrl-C ends it
	$(BIN)/perennial demo

test: $(READY) ## run the tests
	$(BIN)/python -m pytest -n auto -q

check: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: $(READY) ## kill runs a thousand times and more, and compare what they recover to
	PYTHONPATH=. $(BIN)/python -m tests.crash.soak

bench: $(READY) ## measure what the README claims, each against its peer in the same run
	$(BIN)/python -m benchmarks

bench-evidence: $(READY) ## measure whether the defaults win and the advice is right: hours
	$(BIN)/python -m benchmarks.evidence

format: $(READY) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY) ## resolve the dependencies anew
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--group dev pyproject.toml --output-file requirements.lock

clean: ## delete the environment and what was built
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis demo dist
