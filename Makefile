# Everything that a person does here. `make serve` and `make test` need Python 3.11+, make and a
# package index, and do nothing twice.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
PYTEST_ARGS ?=

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help serve install test check format docs bench dist clean

help:
	@echo "make serve    start the service on $(HOST):$(PORT) (HOST=, PORT=)"
	@echo "make test     run all tests (PYTEST_ARGS=)"
	@echo "make check    lint, format, types, import contract, docs"
	@echo "make bench    run the benchmarks"
	@echo "make docs     build the site of docs/ in dist/docs"
	@echo "make dist     build wheel and sdist, with the list of what they bring along"
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
	$(BIN)/python release/audit.py
	$(BIN)/python -m pytest -q tests/test_docs.py
	$(MAKE) docs

format: .venv/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Warnings are errors; a page that is generated from the code is made anew.
docs: .venv/installed-dev
	$(BIN)/sphinx-build -q -E -W --keep-going -d .sphinx_cache docs dist/docs

bench: .venv/installed-dev
	$(BIN)/python benchmarks/bench.py

dist: .venv/installed-dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python release/bill.py dist/*.whl
	cd dist && sha256sum chestxray-* > SHA256SUMS

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .sphinx_cache .import_linter_cache dist
