# A virtual environment is made on first use; PYTHON may be 3.11, 3.12 or 3.13.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# What runs on every backend of Keras; the rest needs TensorFlow, or knows no backend.
EVERY_BACKEND := tests/layers tests/models tests/checkpoints/test_transfer.py
PYTEST := $(BIN)/python -m pytest -q
# A file of tests stays in one process, with what it has prepared. Three on two cores, since
# some wait for programs that they start.
TOGETHER := -n 3 --dist loadfile
# In their own order: files of one test are not left to the end.
IN_ORDER := $(TOGETHER) --no-loadscope-reorder

# The tiers of tests: see CONTRIBUTING.md.
QUICK := not slow and not long and not full
PLAIN := not long and not full
LONG := long and not full

# Hundreds of small programs are compiled for JAX, and each runs once.
FAST_JAX := JAX_DISABLE_MOST_OPTIMIZATIONS=1
# JAX and PyTorch side by side; what one of them prints stays together, where make can do that.
SIDE_BY_SIDE := $(MAKE) --no-print-directory -j 2 $(if $(filter output-sync,$(.FEATURES)),-O)

.PHONY: help demo check test test-long test-full on-jax on-torch clients benchmark docs lint clean

help:
	@echo "make demo       install, export a SavedModel, classify the sample images with it"
	@echo "make check      lint and the quick tests of what changed (about 30 seconds)"
	@echo "make test       all tests but the long ones (about 10 minutes on two cores)"
	@echo "make test-long  tests that take minutes each (about 20 minutes)"
	@echo "make test-full  what needs hours, full size or programs from outside; by hand"
	@echo "make clients    the table of clients in docs/deploy.md, from the tests that run them"
	@echo "make benchmark  every format next to its peers; writes docs/performance.md"
	@echo "make docs       the pages of docs/ as a site, in build/site"

# With the installed package: sys.path has demo/, not the checkout.
demo: $(VENV)/.demo
	@$(BIN)/python demo/run.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy bit_keras

# make check ROOMS="exporters data" runs the tests of these, whatever changed.
check: lint
	KERAS_BACKEND=tensorflow $(PYTEST) -n 2 --dist loadfile -m "$(QUICK)" tests/test_structure.py \
		$$($(BIN)/python tests/changed.py $(ROOMS))

test: lint
	KERAS_BACKEND=tensorflow $(PYTEST) $(TOGETHER) -m "$(PLAIN)"
	$(SIDE_BY_SIDE) on-jax on-torch TIER="$(PLAIN)"

test-long: $(VENV)/.dev
	KERAS_BACKEND=tensorflow $(PYTEST) $(IN_ORDER) -m "$(LONG)"
	$(SIDE_BY_SIDE) on-jax on-torch TIER="$(LONG)"

on-jax:
	KERAS_BACKEND=jax $(FAST_JAX) $(PYTEST) -m "$(TIER)" $(EVERY_BACKEND)

on-torch:
	KERAS_BACKEND=torch $(PYTEST) -m "$(TIER)" $(EVERY_BACKEND)

# Run by hand, for what a change touches: make test-full TESTS=tests/exporters
test-full: $(VENV)/.dev
	KERAS_BACKEND=tensorflow $(PYTEST) -m full $(TESTS)

# What is not installed keeps its rows: make clients TESTS=tests/exporters
clients: $(VENV)/.dev
	KERAS_BACKEND=tensorflow $(PYTEST) -rs --record-clients $(TESTS)
	$(BIN)/python docs/clients.py

# Beside nothing else: what keeps the cores busy is measured with it.
benchmark: $(VENV)/.benchmark
	$(BIN)/python benchmarks/performance.py

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "Open build/site/index.html."

clean:
	rm -rf $(VENV) demo/output build *.egg-info

METADATA := setup.cfg setup.py pyproject.toml MANIFEST.in
# Folders too: a file that is deleted changes theirs.
SOURCES := $(shell find bit_keras -not -path '*/__pycache__*')

# As a user does; the package then is what the others find, so they install theirs again.
$(VENV)/.demo: $(METADATA) $(SOURCES)
	@echo "Installing bit_keras[demo] into $(VENV); the first time it takes some minutes."
	@$(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.dev $(VENV)/.benchmark $(VENV)/.docs
	@$(BIN)/python -m pip install --quiet '.[demo]'
	@touch $@

$(VENV)/.dev $(VENV)/.benchmark $(VENV)/.docs: $(VENV)/.%: $(METADATA)
	@echo "Installing bit_keras[$*] into $(VENV); the first time it takes some minutes."
	@$(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.demo
	@$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@
