# `make` lists the targets. Everything happens in .venv; nothing but Python, make and git has to be there before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CLUSTER_FLAGS ?=
# Many tests wait for servers and processes, so that two cores keep three workers busy.
PYTEST_FLAGS ?= -n 3 --dist loadfile --no-loadscope-reorder
WORKS_FLAGS ?= -n 2 --dist loadfile
# One thread per process: tests and workers run side by side, and results depend on the number of threads.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo test works test-cluster test-cluster-full check bench servers clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(STAMP) ## make .venv with eo-batch and all it needs, pinned by constraints.txt

demo: $(STAMP) ## run the whole job on a simulated planet and print the path of the report
	$(BIN)/eo-batch demo

test: $(STAMP) servers ## run the tests against real servers (those that are not there are skipped, with the reason)
	$(BIN)/pytest -m "not cluster and not works" $(PYTEST_FLAGS)

works: $(STAMP) ## show on a simulated planet that what is taught is learnt, and that shams fail (docs/seeds.md)
	$(BIN)/pytest -m works -rP $(WORKS_FLAGS)

test-cluster: $(STAMP) ## run each runner on the Kubernetes cluster of the current context (docs/clusters.md)
	$(BIN)/pytest -m "cluster and not matrix" $(CLUSTER_FLAGS)

test-cluster-full: $(STAMP) ## the same, disturbed in every way there is
	$(BIN)/pytest -m cluster $(CLUSTER_FLAGS)

check: $(STAMP) ## check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(STAMP) ## make a median cube beside other libraries and print the figures
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.cube

# torch comes first and alone, so that a machine's own index or wheel of it is taken before the others are resolved.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "eo-batch needs Python 3.11 or newer: make PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,flows,kubernetes,netcdf,serve,dev]'
	@touch $@

# Azurite is the only server that comes from npm. Without npm, or without network, its tests are skipped.
servers: tests/servers/node_modules/.installed ## install the test servers that come from npm, if npm is there

tests/servers/node_modules/.installed: tests/servers/package.json
	@if command -v npm >/dev/null; then \
		npm install --prefix tests/servers --no-package-lock --no-audit --no-fund --loglevel=error \
			--fetch-timeout=60000 --fetch-retries=1 \
			&& touch $@ || echo "npm could not install Azurite; its tests will be skipped"; \
	else echo "npm is not there; tests against Azurite will be skipped"; fi

clean: ## delete .venv, caches and servers from npm
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache tests/servers/node_modules
