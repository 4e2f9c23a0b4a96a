PYTHON ?= python3
VENV ?= .venv
FLOOR ?= .venv-floor
PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# One thread a test process: two processes of two threads each wait for one another on a small machine
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal
BENCHMARKS = $(filter-out benchmarks/paired.py benchmarks/rivals.py, $(wildcard benchmarks/*.py))

.PHONY: demo test test-all test-floor conformance bench style

demo: $(VENV)/demo.done  ## train, tune with LoRA, save, reload, generate, draw the loss curve
	$(VENV)/bin/python examples/demo.py

test: $(VENV)/dev.done  ## every commit: under ten minutes
	$(PYTEST)

test-all: $(VENV)/dev.done test-floor  ## everything, slow lane and oldest transformers included
	$(PIP_INSTALL) --editable '.[vector-server]'
	$(PYTEST) -m "not gpu and not hub"

test-floor: $(FLOOR)/dev.done  ## the tests of every commit on the oldest transformers that works
	$(subst $(VENV),$(FLOOR),$(PYTEST))

bench: $(VENV)/dev.done  ## speed and memory beside transformers' own models, as ratios
	$(PIP_INSTALL) --editable '.[rivals]'
	for script in $(BENCHMARKS); do $(VENV)/bin/python $$script || exit 1; done

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

$(FLOOR)/dev.done: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(FLOOR)
	sed 's/^transformers==.*/transformers==5.17.0/' constraints.txt > $(FLOOR)/constraints.txt
	$(FLOOR)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(FLOOR)/constraints.txt \
		--editable '.[dev]' && touch $@
