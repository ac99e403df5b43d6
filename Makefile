# Each target makes .venv by itself: Python 3.11 or newer with venv and pip is all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CAPTIONS ?=
VOC ?=
MINUTES ?= 12
OUT ?= gpu-report
STAMP := $(VENV)/installed

SPELLED := README.md CONTRIBUTING.md CHANGELOG.md Makefile docs src scripts benchmarks

.PHONY: quickstart captioner demo gpu test test-lower lint dist docs docs-links help
help:
	@echo "make quickstart   the main job on drawn scenes, minutes on 2 cores; ends with quickstart/report.html"
	@echo "make captioner    train a small captioner on photographs: CAPTIONS=DIR in COCO's layout, about an hour"
	@echo "make demo         a page to try what was trained, in the browser"
	@echo "make gpu          all that a machine with a GPU can tell, in MINUTES=12; ends with OUT=gpu-report/gpu.md"
	@echo "make test         the test suite"
	@echo "make test-lower   the same with the oldest versions of the dependencies; downloads 3 GB"
	@echo "make lint         ruff, mypy, the import rule, the Dockerfile and the spelling"
	@echo "make dist         the wheel and the sdist in dist/, used in bare environments; downloads 3 GB for each Python"
	@echo "make docs         the documentation site, in docs/_build/html; make docs-links tries its links to the web"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "virtex needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]" -c constraints.txt
	touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/virtex quickstart --out quickstart

CAPTIONS_EXIST := $(shell test -d "$(CAPTIONS)/annotations" && echo yes)
ifeq ($(CAPTIONS_EXIST),yes)
captioner: $(STAMP)
	$(BIN)/virtex pretrain --config captioner_small --data.root "$(CAPTIONS)" --out captioner
else
captioner:
	@echo "make captioner needs CAPTIONS=DIR, a folder in COCO's layout (DIR/annotations, DIR/train2017)" >&2
	@echo "CAPTIONS is '$(CAPTIONS)'. Without photographs, make quickstart trains on drawn scenes." >&2
	@exit 2
endif

demo: $(STAMP)
	$(BIN)/virtex demo $(if $(wildcard captioner/weights.safetensors),captioner,quickstart/run)

gpu: $(STAMP)
	$(BIN)/python -m benchmarks.gpu --minutes $(MINUTES) --out "$(OUT)" $(if $(CAPTIONS),--captions "$(CAPTIONS)") $(if $(VOC),--voc "$(VOC)")

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-lower:
	$(PYTHON) scripts/lower_bounds.py $(TESTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/codespell $(SPELLED)

dist: $(STAMP)
	$(BIN)/python scripts/build.py

docs: $(STAMP)
	$(BIN)/python -m scripts.docs.links
	$(BIN)/python -m scripts.docs.checks
	$(BIN)/python -m sphinx -W --keep-going --quiet --builder html docs docs/_build/html
	@echo "docs/_build/html/index.html"

docs-links: $(STAMP)
	$(BIN)/python -m sphinx --quiet --builder linkcheck docs docs/_build/links
