# Two commands on a fresh machine: `make fit` trains on sample photographs, `make test` checks everything.
PYTHON ?= python3
VENV := .venv/bin

.PHONY: fit test install clean

fit: install  ## the quickstart: no network, a few minutes on two cores
	$(VENV)/python train.py fit --config configs/quickstart.yaml

test: install  ## lint, types, tests
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/python -m pytest -n auto

install: .venv/installed

.venv/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "qlip needs Python >= 3.11; pass one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(VENV)/python || $(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:  ## remove the environment and caches; checkpoints and logs stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
