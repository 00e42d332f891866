# Two commands set everything up on a fresh machine with Python >= 3.11 and pip:
#   make demo   a simulated federation on embedded data; opens nothing, prints where the report lies
#   make test   every test, static checks included
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= runs/demo

.PHONY: demo test fast lint bench clean

demo: $(VENV)/.demo
	$(BIN)/qfed warmup
	$(BIN)/qfed simulate --out $(OUT) --force

# A file's tests stay together (shared fixtures); two files run at a time.
test: $(VENV)/.dev lint
	$(BIN)/qfed warmup
	$(BIN)/python -m pytest -n 2 --dist loadfile

fast: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow and not e2e"

lint: $(VENV)/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

BENCHES := quantum secagg simulate privacy accounting ledger audit hardware synthetic federated_release study deployment
bench: $(VENV)/.dev
	set -e; for b in $(BENCHES); do $(BIN)/python tests/bench/$$b.py --json tests/bench/results/$$b.json; done
	$(BIN)/python tests/bench/redraw.py

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "qfed needs Python >= 3.11; say which with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# A role's packages are installed once and again whenever pyproject.toml changes.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[client,server]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
