#!/bin/sh
# The mail programs the tests marked `peer` talk to: swaks (a client) and Postfix (a server), from Debian or Ubuntu.
# Postfix is installed without a configuration of its own and is not started: each test runs its own instance, with its
# own folder and port, and ends it. Nothing is done where all of it is here already.
set -eu

packages="swaks postfix openssl libnet-ssleay-perl"

here() {
    command -v swaks >/dev/null && command -v openssl >/dev/null && [ -x /usr/lib/postfix/sbin/master ] &&
        perl -MNet::SSLeay -e 1 2>/dev/null
}

PATH="$PATH:/usr/sbin:/sbin"
if here; then
    echo "swaks and Postfix are installed."
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "This installs $packages with apt-get, which is not here. Install swaks and Postfix yourself, then say this again." >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "Installing $packages needs root: sudo make story-mail" >&2
    exit 1
fi
echo "installing $packages (about 20 s) ..."
echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
export DEBIAN_FRONTEND=noninteractive
apt-get update -q=2
apt-get install -q=2 -y --no-install-recommends $packages >/dev/null
if ! here; then
    echo "apt-get said nothing of a failure, but swaks or Postfix is still missing." >&2
    exit 1
fi
echo "swaks and Postfix are installed."
