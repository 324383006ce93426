# make demo    sets up and runs the whole story on the Wall (about ten minutes on two cores); ENV=pusht, ENV=point_maze
# make results every planner on every finetuned model of the Wall, over training seeds (under ninety minutes on two cores)
# make test    sets up and passes the tests; make test-cluster those that start a SLURM of their own (as root)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENV ?= wall

.PHONY: help setup demo results test test-quick test-cluster lint bench clean

help:
	@sed -n 's/^# //p' Makefile

# The stamp is newer than the lock file exactly when what is installed is what the lock file says.
$(VENV)/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; choose another with: make PYTHON=python3.12")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "the Python module venv is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@# the system's certificates: behind a proxy with its own, nothing else works
	UV_SYSTEM_CERTS=1 VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --quiet requirements.lock
	@touch $@

setup: $(VENV)/installed

demo: setup
	$(BIN)/python -m demo --config-name demo_$(ENV)

results: setup
	$(BIN)/python -m results

test: setup
	$(BIN)/python -m pytest

test-quick: setup
	$(BIN)/python -m pytest -m "not slow"

test-cluster: setup
	$(BIN)/python -m pytest -m cluster

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo_outputs
