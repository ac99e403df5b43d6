# Each target makes .venv by itself: Python 3.11 or newer with venv and pip is all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: quickstart test lint help
help:
	@echo "make quickstart   the main job on drawn scenes, minutes on 2 cores; ends with quickstart/report.html"
	@echo "make test         the test suite"
	@echo "make lint         ruff, mypy and the import rule"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "virtex needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]" -c constraints.txt
	touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/virtex quickstart --out quickstart

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
