# StockPicker's commands. `make` alone lists them. Needs make and a Python that the line below allows, nothing else.

PYTHONS := 3.11 to 3.13
VENV ?= .venv
BIN := $(VENV)/bin
# Test processes at once; the suite is measured on two cores.
WORKERS ?= 2

# The first interpreter that runs, is allowed and can make virtual environments. PYTHON=/path/to/python overrides it.
ALLOWED := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
FIND_PYTHON = for python in python3 python3.13 python3.12 python3.11; do \
	if $$python -c '$(ALLOWED)' >/dev/null 2>&1; then echo $$python; break; fi; done
PYTHON ?= $(shell $(FIND_PYTHON))

# pip brings uv, and uv the rest: it resolves and downloads some twenty times quicker. torch comes by pip, so that a build
# without CUDA that pip is told of (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL) spares gigabytes.
BOOTSTRAP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
UV_INSTALL = $(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv install demo up test test-all lint format constraints resolve clean

help:  ## Lists these commands.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-12s %s\n' "$$name" "$$what"; done

install: $(VENV)/.installed  ## Makes the virtual environment with what StockPicker needs to run.
venv: install

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python $(PYTHONS) with its venv module was found; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c '$(ALLOWED)' || { echo "make: $(PYTHON) is not a Python $(PYTHONS) with its venv module; name another: make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BOOTSTRAP) uv
	$(UV_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BOOTSTRAP) torch
	$(UV_INSTALL) --editable '.[dev]'
	@touch $@

demo: install  ## Runs the whole pipeline on a simulated market. Takes SOURCE=, AS_OF=YYYY-MM-DD and ARGS=.
	@$(BIN)/stockpicker demo $(if $(SOURCE),--source $(SOURCE)) $(if $(AS_OF),--as-of $(AS_OF)) $(ARGS)

up: install  ## Starts Dagster's pages, schedules and sensors on this machine. Takes ARGS=.
	@$(BIN)/stockpicker up $(ARGS)

test: $(VENV)/.installed-dev lint  ## Checks style and types, then runs the daily suite.
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not long" $(ARGS)

test-all: $(VENV)/.installed-dev lint  ## The same with the long tests.
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

lint: $(VENV)/.installed-dev  ## Checks style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## Rewrites the code in the project's style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One set of pins holds for every extra and every allowed Python, so that adding an extra never moves the base set.
UV_RESOLVE = $(BIN)/uv pip compile --quiet --system-certs --no-annotate --no-header --no-emit-index-url --no-emit-find-links
CONSTRAINTS_HEADER = \# Exact versions of the base set, the development set, every extra and the peers, for Python $(PYTHONS). Made by: make constraints

constraints: $(VENV)/.installed-dev  ## Resolves constraints.txt anew. Needs the network.
	@$(UV_RESOLVE) --upgrade --universal --python-version 3.11 --extra dev --extra all --extra peers pyproject.toml --output-file constraints.new
	@{ echo "$(CONSTRAINTS_HEADER)"; cat constraints.new; } > constraints.txt && rm constraints.new

resolve: $(VENV)/.installed-dev  ## Checks, without downloading them, that every extra can be installed on every allowed Python.
	@for version in 3.11 3.12 3.13; do \
		code=0; $(UV_RESOLVE) --python-version $$version --constraint constraints.txt --extra dev --extra all pyproject.toml >/dev/null || code=$$?; \
		case $$code in \
			0) echo "the extra 'all' resolves on Python $$version";; \
			1) echo "the extra 'all' does not resolve on Python $$version" >&2; exit 1;; \
			*) echo "SKIPPED: whether the extra 'all' resolves on Python $$version is unknown: no package index answered" >&2;; \
		esac; done

clean:  ## Removes what can be made again: the virtual environment and caches. State is never touched.
	rm -rf $(VENV) .numba_cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find stockpicker_dagster stockpicker_dagster_tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
