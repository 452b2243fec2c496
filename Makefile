# `make demo` and `make test` set up .venv by themselves; `make help` lists everything.
# Your own choices: PYTHON=/path/to/python3.10, TENSORFLOW=2.21 (with Python 3.10 or 3.11), VENV=.venv-2.21,
# EXTRAS=dev,serving,gpu, ARGS="-k attack -x" (for the test targets).

VENV ?= .venv
EXTRAS ?= dev,serving
ARGS ?=
# Most tests trace graphs, in one thread of Python: files of tests go to a process for each core, of which each takes up to
# 3 GiB. ARGS="-n0" makes it one, for a debugger.
PYTEST := $(VENV)/bin/python -m pytest -q -n auto --maxprocesses=4 --dist loadfile

# What a complete environment has: its extras and its TensorFlow.
INSTALLED := $(shell cat $(VENV)/.complete 2>/dev/null)

# The first interpreter that runs and can make an environment (a pyenv shim may be there and not run). 3.11 first: beside
# TensorFlow 2.15 there are tensorflow-addons and tensorflow-gan, and the published results are from there.
ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3.10 python3.9 python3.12 python3.13 python3; do \
	$$python -c 'import ensurepip' >/dev/null 2>&1 && echo $$python && exit; done; echo python3)
endif

# The same range as in setup.py. $(error) stops make with one line, before a recipe has done anything.
python_version = $(shell "$(PYTHON)" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
older_python = $(filter 3.9.% 3.10.% 3.11.%,$(python_version))
newer_python = $(filter 3.10.% 3.11.% 3.12.% 3.13.%,$(python_version))
check_python = $(if $(older_python)$(newer_python),,$(error robgan_tf needs Python 3.9 to 3.13; \
	$(PYTHON) is $(if $(python_version),Python $(python_version),not a working Python). Install one of these or name it: \
	make PYTHON=/path/to/python3.11))
check_tensorflow = $(if $(or $(and $(filter 2.15,$(TENSORFLOW)),$(older_python)),$(and $(filter 2.21,$(TENSORFLOW)),$(newer_python))),,\
	$(error TENSORFLOW=$(TENSORFLOW) does not go with Python $(python_version): 2.15 needs Python 3.9 to 3.11, and 2.21 needs \
	3.10 to 3.13))
ifndef TENSORFLOW
TENSORFLOW = $(or $(word 2,$(INSTALLED)),$(if $(older_python),2.15,2.21))
endif

.DEFAULT_GOAL := help
.PHONY: demo test test-all test-slow lint format setup constraints clean help

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
$(VENV)/.complete: setup.py constraints-2.15.txt constraints-2.21.txt
	$(check_python)$(check_tensorflow)@echo "Setting up $(VENV): $(PYTHON) ($(python_version)), TensorFlow $(TENSORFLOW)."
	@echo "This takes some minutes at the first time."
	@if [ -e $@ ] && $(VENV)/bin/python -c '' 2>/dev/null; then rm $@; else "$(PYTHON)" -m venv --clear $(VENV); fi
	ROBGAN_TENSORFLOW=$(TENSORFLOW) $(VENV)/bin/python -m pip install -c constraints-$(TENSORFLOW).txt -e '.[$(EXTRAS)]'
	@echo '$(EXTRAS) $(TENSORFLOW)' > $@

# Other extras than those it has, asked for by name, bring it up to date. It keeps its interpreter and its TensorFlow:
# `make clean` before others, or another VENV.
ifneq ($(origin EXTRAS),file)
ifneq ($(EXTRAS),$(word 1,$(INSTALLED)))
.PHONY: $(VENV)/.complete
endif
endif

# Without the extra gpu, whose libraries TensorFlow pins itself.
PINNED := $(addprefix --extra ,dev serving crosscheck autoattack onnx bench docs)

constraints:  ## renew the pinned versions for both TensorFlows (needs uv: pip install uv)
	ROBGAN_TENSORFLOW=2.15 uv pip compile setup.py --refresh --upgrade --universal --python-version 3.9 $(PINNED) \
		--output-file constraints-2.15.txt
	ROBGAN_TENSORFLOW=2.21 uv pip compile setup.py --refresh --upgrade --universal --python-version 3.10 $(PINNED) \
		--output-file constraints-2.21.txt

clean:  ## remove .venv, caches and build products; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find robgan_tf tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
