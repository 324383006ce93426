PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENV ?= wall
# Tests that run side by side.
WORKERS ?= 2

.PHONY: help setup demo demo-quick results test test-quick test-cluster lint docs bench clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# The stamp is newer than the lock file exactly when what is installed is what the lock file says.
$(VENV)/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; choose another with: make PYTHON=python3.12")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "the Python module venv is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@# the system's certificates: behind a proxy with its own, nothing else works
	UV_SYSTEM_CERTS=1 VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --quiet requirements.lock
	@touch $@

setup: $(VENV)/installed ## install what requirements.lock names into .venv (PYTHON=python3.12 chooses another Python)

demo: setup ## the whole story on the Wall, about ten minutes on two cores; ENV=pusht, ENV=point_maze
	$(BIN)/python -m experiments demo env=$(ENV)

demo-quick: setup ## the same with two models and few steps and episodes, under two minutes on two cores
	$(BIN)/python -m experiments demo_quick

results: setup ## every planner on every finetuned model of the Wall, over training seeds; under ninety minutes on two cores
	$(BIN)/python -m experiments results

test: setup ## all tests but those of a cluster
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-quick: setup ## the same without the slow ones
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-cluster: setup ## tests that start a SLURM of their own (as root)
	$(BIN)/python -m pytest -m cluster

lint: setup ## ruff, mypy, and the order of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports --no-cache --no-logo

docs: setup ## the pages of docs/ and an API reference as a site in site/, to be opened without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

bench: setup ## how fast each part is
	$(BIN)/python -m benchmarks

clean: ## delete .venv, site, and the outputs of studies
	rm -rf $(VENV) site demo_outputs results_outputs experiments_outputs
