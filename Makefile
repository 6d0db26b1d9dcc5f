# `make help` lists the commands. They need nothing but make and Python 3.11 or newer: each builds
# what it needs in .venv first, and again only when pyproject.toml or constraints.txt has changed.
#
#   PYTHON=python3.12   the interpreter to build .venv with
#   ARGS=...            arguments for the tutorial or for pytest, as in: make test ARGS='-k mask -x';
#                       ARGS="-m 'not slow'" leaves out the slowest, ARGS='-n 0' runs one at a time
#   PIP_ARGS=...        arguments for pip. On Linux, PyPI's torch brings the CUDA libraries, several
#                       gigabytes of them; without an NVIDIA GPU, save them with
#                       PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'

PYTHON ?= python3
ARGS ?=
PIP_ARGS ?=

VENV := .venv
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two installations into one environment at a time would break each other.
.NOTPARALLEL:

.PHONY: help
help:  ## list these commands
	@sed -nE 's/^([a-z0-9]+):.*  ## (.*)/  make \1	\2/p' Makefile | expand -t 18

.PHONY: pendulum
pendulum: $(VENV)/.installed-tutorials  ## train an agent that remembers, on Pendulum without velocities
	$(RUN) tutorials/pendulum.py $(ARGS)

.PHONY: replay
replay: $(VENV)/.installed-tutorials  ## learn Pendulum without velocities from a replay, beside PPO
	$(RUN) tutorials/pendulum_off_policy.py $(ARGS)

.PHONY: matd3
matd3: $(VENV)/.installed-tutorials  ## train a speaker and a listener by critics that see what both do
	$(RUN) tutorials/speaker_listener_matd3.py $(ARGS)

.PHONY: speaker
speaker: $(VENV)/.installed-tutorials  ## train a speaker and a listener who must remember what it heard
	$(RUN) tutorials/speaker_listener.py $(ARGS)

.PHONY: evolution
evolution: $(VENV)/.installed-tutorials  ## let a population search for its own hyper-parameters
	$(RUN) tutorials/pendulum_evolution.py $(ARGS)

# Hundreds of processes import the package: they are to find its bytecode, whatever the shell has.
test: export PYTHONDONTWRITEBYTECODE =

.PHONY: test
test: $(VENV)/.installed-dev  ## style, types and tests
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(RUN) -m pytest -n 2 $(ARGS)

.PHONY: docs
docs: $(VENV)/.installed-docs  ## build the documentation site in site/, with warnings as errors
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

.PHONY: format
format: $(VENV)/.installed-dev  ## format the code and fix what ruff can fix
	$(RUN) -m ruff check --fix-only
	$(RUN) -m ruff format

.PHONY: clean
clean:  ## remove .venv, caches and build products
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find recurrent_rl wrappers tests tutorials benchmarks -name __pycache__ -prune \
		-exec rm -rf {} + 2>/dev/null || true

# Empty files that tell make what has been installed, and when.
$(VENV)/.installed-tutorials: EXTRAS := tutorials
$(VENV)/.installed-dev: EXTRAS := dev,box2d
$(VENV)/.installed-docs: EXTRAS := docs
$(VENV)/.installed-%: pyproject.toml constraints.txt $(VENV)/.created
	$(RUN) -m pip install --constraint constraints.txt $(PIP_ARGS) --editable '.[$(EXTRAS)]'
	touch $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info < (3, 11) and sys.exit( \
		f"Expected Python 3.11 or newer, found {v}; name another: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	touch $@
