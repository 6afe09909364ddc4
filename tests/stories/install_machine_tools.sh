#!/bin/sh
# What machines on this host are made with, and looked at from outside: systemd's containers, QEMU, a firewall, OpenSSH's
# client, dig and curl, Let's Encrypt's test server; from Debian or Ubuntu. Nothing is done where all of it is here already.
set -eu

packages="systemd-container mmdebstrap nftables iproute2 dnsutils openssh-client qemu-system-x86 qemu-utils genisoimage pebble curl"
programs="systemd-nspawn mmdebstrap nft ip dig ssh qemu-system-x86_64 qemu-img genisoimage pebble curl"

missing() {
    for program in $programs; do
        command -v "$program" >/dev/null || echo "$program"
    done
}

PATH="$PATH:/usr/sbin:/sbin"
if [ -z "$(missing)" ]; then
    echo "What machines on this host need is installed."
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "These are missing, and there is no apt-get to install them with: $(missing | tr '\n' ' ')" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "Installing $packages needs root: say it again with sudo." >&2
    exit 1
fi
echo "installing $packages (about a minute) ..."
export DEBIAN_FRONTEND=noninteractive
apt-get update -q=2
apt-get install -q=2 -y --no-install-recommends $packages >/dev/null
if [ -n "$(missing)" ]; then
    echo "apt-get said nothing of a failure, but these are still missing: $(missing | tr '\n' ' ')" >&2
    exit 1
fi
echo "What machines on this host need is installed."
