# Wetread: two commands for everybody, `make demo` and `make test`; `make help` lists the rest.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PACKAGES := service engines evaluation build_engines
CODE := $(PACKAGES) tests $(wildcard benchmarks)

# Tests wait for other processes much of the time, so one runs more than there are cores. What the tests of a file share
# is set up once; files that take long come first as they are named.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# `make check test` runs the unit tests once, in `check`.
CHECKED_ALREADY := $(if $(filter check,$(MAKECMDGOALS)),--ignore=tests/unit)

.DEFAULT_GOAL := help
.PHONY: help install demo check format test counterparts outcomes validators test-viewer bench-receive soak soak-receive test-train ladder ladder-tables lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## .venv with everything that running needs

demo: install  ## a CT and an X-ray through the node and back into an archive, on free ports of this machine
	$(BIN)/wetread demo

check: $(VENV)/.installed-test  ## format, lint, strict types, import rule, unit tests
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) tests/unit

format: $(VENV)/.installed-test  ## let ruff format and repair what it can
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

test: $(VENV)/.installed-test counterparts  ## all tests, against a real Orthanc, DCMTK and validators
	$(PYTEST) tests --ignore=tests/train --ignore=tests/viewer $(CHECKED_ALREADY)

counterparts:  ## the Debian packages that the tests need (with sudo when not root), and dcmjs from npm
	scripts/counterparts
	scripts/dcmjs

outcomes: $(VENV)/.installed-test  ## write docs/outcomes.md anew: what becomes of each real series
	$(BIN)/python -m tests.outcomes

test-viewer: $(VENV)/.installed-test counterparts  ## what OHIF, in a browser, shows of every result; fetches OHIF from npm
	scripts/ohif
	$(BIN)/python -m pytest tests/viewer

validators: $(VENV)/.installed-test counterparts  ## write docs/validators.md anew: who notices which damage
	$(BIN)/python -m tests.conformance.gate

bench-receive: $(VENV)/.installed-test counterparts  ## how fast instances are received, against DCMTK, Orthanc and pynetdicom (half an hour)
	$(BIN)/wetread bench receive --json

soak: $(VENV)/.installed-test counterparts  ## the fault campaign: 330 seeded runs against a real Orthanc and PostgreSQL (an hour); goes on where it was
	$(BIN)/python -m tests.faults.campaign --seeds 0-329 --folder soak-out

soak-receive: $(VENV)/.installed-test  ## kill -9 of the node a hundred times while instances come, and 10,000 health probes (a quarter of an hour)
	$(BIN)/python -m tests.soak_receive

test-train: $(VENV)/.installed-train  ## the tests that train; installs PyTorch
	$(BIN)/python -m pytest tests/train

ladder: $(VENV)/.installed-train  ## train and measure every row of the ladder that was not yet (hours); FRESH=1: all of them
	@for row in $$($(BIN)/python -m build_engines.recipes.ladder.every_row); do \
		if [ -n "$(FRESH)" ] || [ ! -f docs/ladder/$$row.json ]; then \
			$(BIN)/wetread-train $$row $(if $(FRESH),--fresh) || exit 1; \
		fi; \
	done
	$(BIN)/python -m build_engines.recipes.ladder.tables

ladder-tables: $(VENV)/.installed-train  ## write the tables of docs/models.md anew, from docs/ladder
	$(BIN)/python -m build_engines.recipes.ladder.tables

lock: $(VENV)/.installed-test  ## write constraints.txt anew: the newest versions that pyproject.toml allows
	$(PIP) install uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra test --extra rtx --extra bench --extra quantise \
		--extra evaluate --extra train --no-emit-index-url --no-annotate --custom-compile-command "make lock" \
		--output-file constraints.txt pyproject.toml
	sed -i -E '/^(cuda-|nvidia-|triton==)/d' constraints.txt  # PyTorch's own affair: it has builds without them

clean:  ## remove .venv, caches and what the demo wrote
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis demo-out *.egg-info build dist
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	scripts/venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Wetread into $(VENV) (a few minutes the first time)"
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Wetread and its test tools into $(VENV) (a few minutes the first time)"
	$(PIP) install --constraint constraints.txt --editable '.[test,rtx,quantise]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-train: $(VENV)/.installed-test
	@echo "Installing PyTorch into $(VENV)"
	$(PIP) install --constraint constraints.txt --editable '.[train]'
	@touch $@
