# Needs Python 3.11 or newer, and make. Everything else goes into .venv, from files with hashes: see scripts/setup.
#   make test ARGS="-k claim"      more arguments for pytest
#   make demo PYTHON=python3.12    another interpreter
PYTHON ?=
ARGS ?=
export PYTHON

RUN := .venv/bin/python

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo api worker test check lock clean setup setup-dev

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 16

demo: setup ## start the service, send it work, show the results
	@$(RUN) integrated_demo.py

api: setup ## start the HTTP API
	@$(RUN) run_api.py

worker: setup ## start a worker
	@$(RUN) run_worker.py

test: setup-dev ## run the tests
	$(RUN) -m pytest tests/ $(ARGS)

check: setup-dev ## check format, lint, types and layers
	$(RUN) -m black --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	.venv/bin/lint-imports

lock: ## recompile requirements.txt and requirements-dev.txt (needs uv)
	@sh scripts/lock $(ARGS)

clean: ## remove .venv and caches; data stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Not in the list: the others call them.
setup:
	@sh scripts/setup requirements.txt

setup-dev:
	@sh scripts/setup requirements-dev.txt
