#!/bin/sh
# install.sh PYTHON ARGUMENT...: `pip install ARGUMENT...` into PYTHON's environment, by uv, which takes a seventh of pip's
# time; by pip itself where there is no uv for this machine, or it fails. From the index that pip is configured for. Quiet
# unless it fails; a dot every two seconds says that it goes on.
set -eu
here=$(dirname "$0")
python=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# As pip has it: from its environment or its files.
pip_has() { "$python" -m pip config get ":env:.$1" 2>/dev/null || "$python" -m pip config get "global.$1" 2>/dev/null || true; }

by_uv() {
  "$python" -m uv --version >/dev/null 2>&1 ||
    "$python" -m pip install -q --only-binary :all: --require-hashes -r "$here/uv.txt" || return 1
  index=$(pip_has index-url)
  certificates=$(pip_has cert)
  [ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
  [ -z "$certificates" ] || export SSL_CERT_FILE="$certificates"
  "$python" -m uv pip install -q --python "$python" "$@"
}

by_pip() { "$python" -m pip install -q "$@"; }

# patiently COMMAND...: in the background, with a dot every two seconds; its exit code.
patiently() {
  "$@" >"$log" 2>&1 &
  child=$!
  trap 'kill "$child" 2>/dev/null; rm -f "$log"; exit 130' INT TERM
  waited=0
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.1
    waited=$((waited + 1))
    if [ $((waited % 20)) = 0 ]; then printf '.'; fi
  done
  if [ "$waited" -ge 20 ]; then echo; fi
  wait "$child"
}

patiently by_uv "$@" || patiently by_pip "$@" || {
  cat "$log" >&2
  echo "The packages could not be installed: what pip says stands above. Is its index reached? Then say this again." >&2
  exit 1
}
