# `make demo` and `make test` set up what they need: a virtual environment in .venv, installed from pyproject.toml.
# A PYTHON that is given and is not the one of .venv makes a new .venv; without one the .venv that is there is used.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

BENCH := .venv-bench
DOCS := .venv-docs

ifneq ($(origin PYTHON),file)
ifneq ($(PYTHON),$(shell cat .venv/.python 2>/dev/null))
OTHER_PYTHON := other-python
endif
endif

.PHONY: demo test soak bench compare check docs format clean other-python

demo: $(READY)
	$(BIN)/python -m supervisor.demo

test: $(READY)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Ten minutes of everything that can go wrong; the same seed gives the same jobs and faults.
SECONDS ?= 600
SEED ?= 1
soak: $(READY)
	$(BIN)/python -m benchmarks.soak --seconds $(SECONDS) --seed $(SEED) $(SOAK_ARGS)

# Ten minutes of measuring, written into benchmarks/RESULTS.md; BENCH_ARGS=--short for half a minute that writes nothing.
bench: $(BENCH)/.ready
	$(BENCH)/bin/python -m benchmarks $(BENCH_ARGS)

# A quarter of an hour beside the published client's pool and Celery's, which needs redis-server; prints a table.
# COMPARE_ARGS="cancel-c crash" for some experiments, --short for one round of each.
compare: $(BENCH)/.ready
	$(BENCH)/bin/python -m benchmarks.comparison $(COMPARE_ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages go to build/docs/html, the manual page to build/docs/man; a dead reference fails.
docs: $(DOCS)/.ready
	$(DOCS)/bin/sphinx-build --quiet --fresh-env --write-all --nitpicky --fail-on-warning --keep-going --builder html docs build/docs/html
	$(DOCS)/bin/sphinx-build --quiet --fresh-env --write-all --nitpicky --fail-on-warning --keep-going --builder man docs build/docs/man

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml $(OTHER_PYTHON)
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	echo '$(PYTHON)' > .venv/.python
	touch $@

# A virtual environment of its own: what is measured beside the program stays out of the tests' one.
$(BENCH)/.ready: pyproject.toml
	$(PYTHON) -m venv --clear $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

$(DOCS)/.ready: pyproject.toml
	$(PYTHON) -m venv --clear $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv $(BENCH) $(DOCS) build dist *.egg-info
