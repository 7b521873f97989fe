# Needs Python 3.11 or newer, and make. Everything else goes into .venv, from files with hashes: see scripts/setup.
#   make test ARGS="-k claim"      more arguments for pytest
#   make demo PYTHON=python3.12    another interpreter
PYTHON ?=
ARGS ?=
export PYTHON

RUN := .venv/bin/python

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo api worker test chaos check bench dist audit sbom screenshots lock clean setup setup-dev

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 18

demo: setup ## start the service, send it work, show the results
	@$(RUN) integrated_demo.py

api: setup ## start the HTTP API
	@$(RUN) run_api.py

worker: setup ## start a worker
	@$(RUN) run_worker.py

test: setup-dev ## run the tests
	$(RUN) -m pytest tests/ $(ARGS)

chaos: setup-dev ## run the long form of the chaos tests, then take out every guard (under 90 minutes)
	CHAOS=long $(RUN) -m pytest tests/chaos tests/workers/test_isolation.py -s --timeout 3600 $(ARGS)
	$(RUN) -m tests.chaos.guards

check: setup-dev ## check format, lint, types and layers
	$(RUN) -m black --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	.venv/bin/lint-imports

bench: setup-dev ## measure everything, rewrite docs/performance.md (an hour and a half)
	$(RUN) benchmarks/all.py $(ARGS)

dist: ## build the distributions into dist/, and check them
	@sh scripts/setup requirements-dist.txt .venv-dist
	rm -rf dist
	.venv-dist/bin/python -m build --no-isolation --outdir dist .
	.venv-dist/bin/python -m build --no-isolation --wheel --outdir dist clients/python
	.venv-dist/bin/python -m twine check --strict dist/*

screenshots: setup-dev ## make the pictures of docs/dashboard.md anew (needs chromium; five minutes)
	$(RUN) -m tests.browser.screenshots

audit: ## look for known holes in what is pinned (3 where nobody can be asked)
	@sh scripts/setup requirements-audit.txt .venv-audit
	@.venv-audit/bin/python scripts/audit

sbom: ## write dist/sbom.json: what running needs, as CycloneDX
	@sh scripts/setup requirements-audit.txt .venv-audit
	@mkdir -p dist
	.venv-audit/bin/cyclonedx-py requirements requirements.txt --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.json

lock: ## recompile the requirements files (needs uv)
	@sh scripts/lock $(ARGS)

clean: ## remove .venv and caches; data stays
	rm -rf .venv .venv-dist .venv-audit .venv-peers dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Not in the list: the others call them.
setup:
	@sh scripts/setup requirements.txt

setup-dev:
	@sh scripts/setup requirements-dev.txt
