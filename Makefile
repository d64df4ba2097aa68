# Every target sets up .venv when it is missing or its requirements changed; all are safe to repeat.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
NOTEBOOK_WORKERS ?= 2
# Three on two cores: many tests wait for a server, a lock or a child, and use no processor meanwhile.
TEST_WORKERS ?= 3
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder
# Notebooks of your own under nbs/, which git does not have, are yours: nothing checks or changes them.
NOT_SCRATCH = $$($(BIN)/python tools/scratch.py ruff)

export JUPYTER_PLATFORM_DIRS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-all docs check lab figures export clean

help:  ## these lines
	@echo "zero_shot_distill: make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-9s %s\n", $$1, $$2}' Makefile

$(STAMP): settings.ini constraints.txt setup.py
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $$($(PYTHON) --version) is too old; name Python 3.11 or newer: make PYTHON=python3.12"; exit 1; }
	@echo "Installing into .venv: one to four minutes and 2.4 GB of disk the first time, seconds when only the requirements changed ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -qq --no-compile -c constraints.txt -e '.[dev]'
	@# pip would compile one file after another; what fails is no code of this Python, as with pip.
	@$(BIN)/python -m compileall -qq -j 0 -x '[/\\]tests?[/\\]' .venv/lib || true
	@touch $@

demo: $(STAMP)  ## ask a teacher, train the students, write the report page
	@$(BIN)/zsd run data/pipelines/demo.yaml

check: $(STAMP)  ## modules, README and notebooks in step; lint; format (seconds)
	@$(BIN)/python tools/check_sync.py
	@$(BIN)/ruff check --quiet $(NOT_SCRATCH)
	@$(BIN)/ruff format --check --quiet $(NOT_SCRATCH) || { echo "make export formats these"; exit 1; }

test: check  ## check, then every notebook, then pytest
	@OMP_NUM_THREADS=1 $(BIN)/python tools/test_notebooks.py --n_workers $(NOTEBOOK_WORKERS) $$($(BIN)/python tools/scratch.py nbdev)
	@$(PYTEST) -m "not slow"

test-all: check  ## test, with the slow parts and the large teacher
	@OMP_NUM_THREADS=1 $(BIN)/python tools/test_notebooks.py --n_workers $(NOTEBOOK_WORKERS) --flags slow $$($(BIN)/python tools/scratch.py nbdev)
	@$(PYTEST)

docs: $(STAMP)  ## the documentation, into _docs/index.html
	@$(BIN)/python tools/build_docs.py

lab: $(STAMP)  ## JupyterLab on the notebooks
	@$(BIN)/jupyter lab nbs $$([ "$$(id -u)" != 0 ] || echo --allow-root) $(LAB_OPTIONS)

figures: $(STAMP)  ## run the experiment notebooks whose figures are out of date; they write figures/
	@$(BIN)/zsd figures

export: $(STAMP)  ## format and clean the notebooks; write the modules and the README from them
	@$(BIN)/ruff check --quiet --fix --select I,W $(NOT_SCRATCH) || true
	@$(BIN)/ruff format --quiet $(NOT_SCRATCH)
	@$(BIN)/nbdev_clean
	@$(BIN)/nbdev_export
	@$(BIN)/python tools/make_readme.py

clean:  ## remove what builds wrote; .venv and zsd-work (paid responses) stay
	rm -rf _docs _proc build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
