# Everything that a person does here. `make serve` and `make test` need Python 3.11+, make and a
# package index, and do nothing twice.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
PYTEST_ARGS ?=

BIN := .venv/bin
# Albumentations would ask the network for its newest version.
export NO_ALBUMENTATIONS_UPDATE := 1
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help serve install test check format bench clean

help:
	@echo "make serve    start the service on $(HOST):$(PORT) (HOST=, PORT=)"
	@echo "make test     run all tests (PYTEST_ARGS=)"
	@echo "make check    lint, format, types, import contract, docs"
	@echo "make bench    run the benchmarks"
	@echo "make format   mend what can be mended"
	@echo "make clean    remove the virtual environment and caches"

# What serving needs and no more; an environment with every extra has it too.
.venv/installed-base: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e .
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[dev]'
	touch .venv/installed-base $@

install: .venv/installed-dev

serve: .venv/installed-base
	exec $(BIN)/chestxray serve --host $(HOST) --port $(PORT)

test: .venv/installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_docs.py

format: .venv/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/installed-dev
	$(BIN)/python benchmarks/bench.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist
