# `make demo` and `make test` set up .venv by themselves; `make help` lists everything.
# Your own choices: PYTHON=/path/to/python3.10, EXTRAS=dev,serving,gpu, ARGS="-k attack -x" (for the test targets).

VENV := .venv
EXTRAS ?= dev,serving
ARGS ?=
# Most tests trace graphs, in one thread of Python: files of tests go to a process for each core, of which each takes up to
# 3 GiB. ARGS="-n0" makes it one, for a debugger.
PYTEST := $(VENV)/bin/python -m pytest -q -n auto --maxprocesses=4 --dist loadfile

# The first interpreter that runs and can make an environment (a pyenv shim may be there and not run).
ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3.10 python3.9 python3; do \
	$$python -c 'import ensurepip' >/dev/null 2>&1 && echo $$python && exit; done; echo python3)
endif

# The same range as in setup.py. $(error) stops make with this one line, before a recipe has done anything.
python_version = $(shell "$(PYTHON)" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
check_python = $(call require_supported,$(python_version))
require_supported = $(if $(filter 3.9.% 3.10.% 3.11.%,$(1)),,$(error robgan_tf needs Python 3.9, 3.10 or 3.11; \
	$(PYTHON) is $(if $(1),Python $(1),not a working Python). Install one of these or name it: make PYTHON=/path/to/python3.11))

.DEFAULT_GOAL := help
.PHONY: demo test test-all test-slow lint format setup clean help

demo: $(VENV)/.complete  ## train, attack and export a small Rob-GAN on the embedded digits (runs/digits)
	$(VENV)/bin/python -m robgan_tf.train --gin_file=gin/digits.gin --run_dir=runs/digits

test: $(VENV)/.complete  ## quick tests
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(VENV)/.complete  ## every test
	$(PYTEST) $(ARGS)

test-slow: $(VENV)/.complete  ## the slow tests alone
	@# pytest leaves with 5 where it selected no test.
	$(PYTEST) -m slow --durations=20 $(ARGS) || [ $$? -eq 5 ]

lint: $(VENV)/.complete  ## check style and format, change nothing
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .

format: $(VENV)/.complete  ## repair style and format where ruff can
	$(VENV)/bin/python -m ruff check --fix .
	$(VENV)/bin/python -m ruff format .

setup: $(VENV)/.complete  ## only set up .venv

# Written last, so that an interrupted set-up starts afresh at the next call. A complete one whose requirements changed
# is brought up to date in place.
$(VENV)/.complete: setup.py constraints.txt
	$(check_python)@echo "Setting up $(VENV) with $(PYTHON) ($(python_version)): some minutes at the first time."
	@if [ -e $@ ] && $(VENV)/bin/python -c '' 2>/dev/null; then rm $@; else "$(PYTHON)" -m venv --clear $(VENV); fi
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[$(EXTRAS)]'
	@echo '$(EXTRAS)' > $@

# Other extras than those it has, asked for by name, bring it up to date. It keeps its interpreter: `make clean` before another one.
ifneq ($(origin EXTRAS),file)
ifneq ($(EXTRAS),$(shell cat $(VENV)/.complete 2>/dev/null))
.PHONY: $(VENV)/.complete
endif
endif

clean:  ## remove .venv, caches and build products; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find robgan_tf tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
