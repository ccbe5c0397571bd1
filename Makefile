# `make demo` runs the main job on the bundled data, `make test` runs the tests; both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
# One computing thread per test process: two processes with spinning threads on two cores are many times slower.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   map the bundled real scans and simulated ones, write demo/report.html"
	@echo "make test   run all tests"
	@echo "make lint   ruff, mypy and the import contract"
	@echo "make docs   build the documentation into site/"

# torch comes first and pinned, so that no other package pulls another build of it.
.venv/installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint requirements.lock torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable ".[test]"
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable ".[test,lint,docs]"
	@touch $@

demo: .venv/installed
	$(BIN)/python examples/demo.py --output demo

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed-dev
	$(BIN)/python docs/build.py

clean:
	rm -rf .venv site demo
