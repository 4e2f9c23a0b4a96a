PYTHON ?= python3
VENV ?= .venv
PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all conformance style

demo: $(VENV)/demo.done  ## train, tune with LoRA, save, reload, generate, draw the loss curve
	$(VENV)/bin/python examples/demo.py

test: $(VENV)/dev.done  ## every commit: under ten minutes
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

test-all: $(VENV)/dev.done  ## everything, slow lane included
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not gpu and not hub"

conformance: $(VENV)/dev.done  ## run the sweep for every architecture and record in the README what holds
	$(VENV)/bin/python docs/tables.py --run

style: $(VENV)/dev.done  ## format, lint, regenerate the tables
	$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix . && $(VENV)/bin/python docs/tables.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.done: pyproject.toml setup.py constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --editable '.[plots]' && touch $@

$(VENV)/dev.done: pyproject.toml setup.py constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --editable '.[dev]' && touch $@ $(VENV)/demo.done
