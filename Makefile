# Two commands on a fresh machine: `make fit` trains on sample photographs, `make test` checks everything.
PYTHON ?= python3
VENV := .venv/bin

OLDEST_PYTHON ?= python$(shell $(PYTHON) -c 'from qlip._version import SUPPORTED as s; print(s["python"])')
OLDEST = $(shell $(PYTHON) -c 'from qlip._version import SUPPORTED as s; print(*(f"{n}=={s[n]}.*" for n in s if n != "python"))')

SEED ?= $(shell date +%s)
SECONDS ?= 3600

.PHONY: fit test test-oldest campaign docs help-texts install clean

fit: install  ## the quickstart: no network, a few minutes on two cores
	$(VENV)/python train.py fit --config quickstart

test: install  ## lint, types, tests, the site
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/python -m pytest -n auto
	$(VENV)/zensical build --strict --clean

test-oldest:  ## what touches transformers and torch, on the oldest versions of them that we support
	test -x .venv-oldest/bin/python || $(OLDEST_PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet $(OLDEST) --editable '.[dev]'
	.venv-oldest/bin/python -m pytest -n auto tests/core tests/images tests/towers tests/families

campaign: install  ## an hour of damaged inputs and kills with other seeds; counters at the end (docs/security.md)
	@echo "make campaign SEED=$(SEED) SECONDS=$(SECONDS)"
	QLIP_CAMPAIGN_SEED=$(SEED) QLIP_CAMPAIGN_SECONDS=$(SECONDS) $(VENV)/python -m pytest -n auto -W ignore tests/robustness

docs: install  ## the site, into site/; a warning or a dead link is an error
	$(VENV)/zensical build --strict --clean

help-texts: install  ## what `qlip VERB --help` shows, written anew from the parsers
	$(VENV)/python -m qlip.help.write

install: .venv/installed

.venv/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "qlip needs Python >= 3.11; pass one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(VENV)/python || $(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --editable '.[dev,docs]'
	touch $@

clean:  ## remove the environment and caches; checkpoints and logs stay
	rm -rf .venv .venv-oldest .mypy_cache .pytest_cache .ruff_cache .hypothesis
