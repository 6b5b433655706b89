# Everything runs in .venv, which the first target that needs it creates from pinned versions.
#   make quickstart   generate logs, prepare shards, run a study, write its report (minutes on two cores)
#   make test         every test          make lint        ruff, strict types, and that imports go one way
#   make test-fast    what needs no cluster, browser or study, and of many combinations a few (two minutes)
#   make test-rest    all other tests
#   make chaos        the long form of the chaos suite: twenty kills of one study and all that tests do
#   make bench        CPU benchmarks (minutes), kept in benchmarks/RESULTS.md
#   make rooms        every folder of the packages with its files and lines
#   make api          the reference, out of the docstrings, into build/api/
#   make release-check   wheel and source archive, and the quickstart from each
#   make dashboard    the app over runs/  make clean       delete what the targets made
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
ROWS ?= 150000

.PHONY: quickstart bench test test-fast test-rest chaos lint format rooms api release-check dashboard clean install
install: .venv/.installed

# torch first: it decides which build of itself the others get.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sizewise needs Python 3.11 or newer: set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt torch
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: .venv/.installed data/planted/manifest.json
	@if [ -f runs/quickstart/study.yaml ]; then $(BIN)/sizewise resume quickstart || [ $$? -eq 2 ]; \
	 else $(BIN)/sizewise run studies/quickstart.yaml; fi
	@$(BIN)/sizewise report quickstart --out report.html
	@echo "Open the dashboard with: make dashboard"

data/planted-raw/truth.json: | .venv/.installed
	@$(BIN)/sizewise generate data/planted-raw --rows $(ROWS) --seed 1

data/planted/manifest.json: data/planted-raw/truth.json
	@$(BIN)/sizewise prep data/planted-raw/*.tsv --out data/planted

# COVERAGE="--cov" prints which lines the tests reach: measuring costs the fast ones half as much time again, and sees
# little of the slow ones, which run in processes of their own.
# What pytest makes of each test file is kept for the next process, also where Python is told to keep nothing.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder

# Slow tests wait for much of their time, for Ray, browsers and processes that end: three keep two cores busy. Each
# takes up to 3 GB; JOBS=2 is for machines with less than 12 GB.
JOBS ?= 3

test: .venv/.installed
	$(PYTEST) -n $(JOBS) -q $(COVERAGE)

test-fast: .venv/.installed
	$(PYTEST) -n 2 -m "not slow" --combinations few -q $(COVERAGE)

test-rest: .venv/.installed
	$(PYTEST) -n $(JOBS) --combinations rest -q

chaos: .venv/.installed
	$(BIN)/python -m pytest --chaos -s tests/chaos

bench: .venv/.installed
	$(BIN)/python -m benchmarks.cpu --results benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks.trial --results benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks.scaling --results benchmarks/RESULTS.md

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

rooms: .venv/.installed
	@$(BIN)/python -m tests.rooms

# Annotations with names that only type checkers import are shown as they are written; pdoc warns of each.
api: .venv/.installed
	$(BIN)/pdoc --docformat google --output-directory build/api \
	  sizewise sizewise_prep sizewise_dashboard sizewise_core

release-check: .venv/.installed
	$(BIN)/python tests/release_check.py

dashboard: .venv/.installed
	$(BIN)/sizewise dashboard

clean:
	rm -rf .venv data runs report.html build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
