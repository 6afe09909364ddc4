#!/bin/sh
# What machines on this host need, from Debian's packages: only what is missing. As root.
set -eu
missing=""
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need systemd-nspawn systemd-container
need mmdebstrap mmdebstrap
need ip iproute2
need nft nftables
need qemu-system-x86_64 qemu-system-x86
need qemu-img qemu-utils
need genisoimage genisoimage
need ssh openssh-client
need dockerd docker.io
[ -z "$missing" ] && exit 0
[ "$(id -u)" -eq 0 ] || { echo "Missing:$missing. As root: apt-get install -y --no-install-recommends$missing"; exit 1; }
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
# shellcheck disable=SC2086  # several words
apt-get -q install -y --no-install-recommends $missing
