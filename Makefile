# Works on a bare machine with make, Python 3.11 or newer and its venv module.

PYTHON ?= python3
ARGS ?=
# Tests at once: they wait about as long as they compute.
JOBS ?= 3
BIN := .venv/bin
TEST_VENV := build/test-venv

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PYTHONNOUSERSITE = 1
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help demo test check ci format bench bench-quick venv clean

define create_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo >&2 "lithops_mini needs Python 3.11 or newer and '$(PYTHON)' is not; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo >&2 "'$(PYTHON)' cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(1)
endef
define create_test_venv
	rm -rf $(TEST_VENV) build/lib
	$(call create_venv,$(TEST_VENV))
	$(TEST_VENV)/bin/python -m pip install --quiet '.[dev]'
endef
define run_checks
	$(1)/ruff check .
	$(1)/ruff format --check .
	$(1)/mypy --strict
	$(1)/lint-imports
endef
define run_tests
	$(TEST_VENV)/bin/pytest -n $(JOBS) $(ARGS)
endef

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/demo.stamp  ## two map_reduce jobs over real data, checked and drawn
	$(BIN)/python examples/nycflights.py $(ARGS)

test:  ## every test, against the package installed in a new environment (ARGS="-k name" for some, JOBS=4 for more at once)
	$(create_test_venv)
	$(run_tests)

check: .venv/dev.stamp  ## ruff, mypy --strict, import-linter
	$(call run_checks,$(BIN))

ci:  ## both, in one new environment: what must pass before a change lands
	$(create_test_venv)
	$(call run_checks,$(TEST_VENV)/bin)
	$(run_tests)

format: .venv/dev.stamp  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/dev.stamp  ## the benchmarks, beside their references
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-quick: .venv/dev.stamp  ## the same with less of everything, in five minutes
	$(BIN)/python benchmarks/run.py --quick $(ARGS)

venv: .venv/dev.stamp  ## .venv with the package, editable, and all tools: then .venv/bin/pytest tests/test_x.py

clean:  ## delete everything make has made
	rm -rf .venv build dist demo-output *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/created.stamp:
	$(call create_venv,.venv)
	@touch $@

.venv/demo.stamp: setup.cfg pyproject.toml | .venv/created.stamp
	$(BIN)/python -m pip install --quiet --editable '.[docker,plot]'
	@touch $@

.venv/dev.stamp: setup.cfg pyproject.toml | .venv/created.stamp
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
