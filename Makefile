# Two commands do everything on a machine with Python 3.11 and make:
#   make reports   creates the environment, trains, and writes reports/quick/
#   make test      creates the environment if it is missing, and runs all checks
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PROFILE ?= quick

.PHONY: help reports bench notebooks test lint lab clean

help:
	@echo "make reports     train and write reports/quick/ (PROFILE=cpu or paper for the larger protocols)"
	@echo "make test        lint, types, tests, and the notebooks against their recorded outputs"
	@echo "make bench       time and memory of the loss, time of the network's forward, written to reports/bench/"
	@echo "make notebooks   execute the notebooks in place, from the recorded study"
	@echo "make lab         open the notebooks in JupyterLab"
	@echo "make clean       remove the environment and the caches (records in reports/ stay)"

# The lock is a constraint: each platform installs what it needs, at the version that was tested.
.venv/installed: pyproject.toml requirements.lock
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint requirements.lock --editable ".[dev]"
	touch $@

reports: .venv/installed
	$(BIN)/python -m prffn reports --profile $(PROFILE)

bench: .venv/installed
	$(BIN)/python -m prffn bench

notebooks: .venv/installed
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False notebooks/*.ipynb

test: lint
	$(BIN)/python -m pytest --nbval --nbval-current-env tests notebooks -n auto --dist loadfile --no-loadscope-reorder

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: .venv/installed
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf .venv .cache *.egg-info .pytest_cache .mypy_cache .ruff_cache
