#!/bin/sh
# Write the lock files anew from pyproject.toml. Needs uv (`pip install uv`); `make lock` calls it.
# No registry's host is written: whoever installs uses their own.
set -eu
cd "$(dirname "$0")/.."
lock() {
  uv pip compile -q pyproject.toml "$@" --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate --no-header
}
lock --extra build -o requirements/run.txt
lock --extra build --extra dev -o requirements/dev.txt
