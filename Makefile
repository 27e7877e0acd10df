# `make demo` and `make test` set up what they need: a virtual environment in .venv, installed from pyproject.toml.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test soak check format clean

demo: $(READY)
	$(BIN)/python -m supervisor.demo

test: $(READY)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Ten minutes of everything that can go wrong; the same seed gives the same jobs and faults.
SECONDS ?= 600
SEED ?= 1
soak: $(READY)
	$(BIN)/python -m benchmarks.soak --seconds $(SECONDS) --seed $(SEED) $(SOAK_ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
