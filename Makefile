# `make help` lists what there is. Everything runs in .venv, which is made when it is missing.

PYTHON := .venv/bin/python
INSTALLED := build/installed

# Scripts that the type checkers read beside the package. A folder joins in when it is there.
SCRIPTS := $(wildcard benchmarks examples tests/packaging tests/typing)
BENCHMARKS := $(filter-out benchmarks/_% benchmarks/peers/_%,$(wildcard benchmarks/*.py benchmarks/peers/*.py))
MEASURED := build/measured

# The steps of `make test` run one by one in their order, also under -j; the first failure ends it.
.NOTPARALLEL:
.PHONY: help demo test environment lint cover dist installed others
.PHONY: bench bench-docs campaign newest oldest nogil pin clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

# It needs what ipcpoll needs at run time, and nothing else: no window, no package of the system.
demo: ## show a program's own loop answer another process
	@.ci/environment .venv-demo runtime
	PYTHONPATH='$(CURDIR)' .venv-demo/bin/python examples/simple.py demo

test: lint cover dist installed others ## all that must pass: the five targets that follow
	@echo 'make test: everything passed'

lint: environment ## ruff, mypy --strict, pyright
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy --strict -p ipcpoll
	.venv/bin/mypy --strict $(SCRIPTS)
	.venv/bin/pyright --pythonpath $(PYTHON)

# The last line holds what is without I/O to every branch.
cover: environment ## the tests, and the branches that they cover
	.venv/bin/pytest --cov --cov-report=term
	.venv/bin/coverage report --fail-under=100 \
	  --include='ipcpoll/_wire/*,ipcpoll/_schema/*,ipcpoll/describe/*,ipcpoll/errors.py,ipcpoll/limits.py,ipcpoll/_shown.py'

dist: environment ## build the sdist and the wheel, and check what is in them
	rm -rf build dist ipcpoll.egg-info
	$(PYTHON) -m build --quiet --no-isolation
	$(PYTHON) tests/packaging/check_dist.py

installed: dist ## install the wheel somewhere else, and use it there
	$(PYTHON) -m venv --clear $(INSTALLED)
	$(INSTALLED)/bin/python -m pip install -q --disable-pip-version-check --require-hashes \
	  -r .ci/pinned/runtime.txt
	$(INSTALLED)/bin/python -m pip install -q --disable-pip-version-check --no-deps dist/*.whl
	$(INSTALLED)/bin/python -m pip check
	cd / && '$(CURDIR)/$(INSTALLED)/bin/python' -I '$(CURDIR)/tests/packaging/use_installed.py'

others: environment ## the tests under the other CPythons on this machine
	.ci/other-pythons

# The peers live in an environment of their own. OPTIONS=--quick runs all in short.
bench: ## measure beside every peer: some 12 minutes, with nothing else on the machine
	@.ci/environment .venv-bench bench
	@mkdir -p $(MEASURED)
	@for file in $(BENCHMARKS); do \
	  .venv-bench/bin/python "$$file" $(OPTIONS) --json "$(MEASURED)/$$(basename "$$file" .py).json" \
	  || exit; done

bench-docs: ## draw the plots of docs/benchmarks.md and renew its tables from what make bench wrote
	@.ci/environment .venv-bench bench
	.venv-bench/bin/python benchmarks/report/plots.py $(MEASURED) docs

# How long; less than an hour is only a try, and is not written into docs/reliability.md.
MINUTES := 60
campaign: ## attack every promise for MINUTES=60; docs/reliability.md tells how
	@.ci/environment .venv-campaign campaign
	.venv-campaign/bin/python tests/campaign/run.py --minutes $(MINUTES)

newest: ## the tests with the newest release of everything, under each CPython
	@.ci/environment .venv-newest newest
	.venv-newest/bin/pytest -q
	.ci/other-pythons newest

oldest: ## the tests with the oldest release of everything that is allowed, under each CPython
	@.ci/environment .venv-oldest oldest-3.11
	.venv-oldest/bin/pytest -q
	.ci/other-pythons oldest

nogil: environment ## the tests under a free-threaded CPython, if there is one
	$(PYTHON) tests/campaign/free_threaded.py

pin: ## renew the lists of releases that the environments are made from
	.ci/pin

clean: ## remove all that make has made
	rm -rf .venv .venv-* build dist ipcpoll.egg-info
	rm -rf .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

environment:
	@.ci/environment .venv dev
