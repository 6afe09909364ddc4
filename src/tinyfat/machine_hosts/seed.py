"""What cloud-init reads on a machine of this host: its NoCloud data source, files in a folder.

https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tinyfat.machine_hosts.programs import run
from tinyfat.machine_hosts.records import Record

DISK_BYTES = 1024**2  # of each seed's disk: a clone's system believes the size it was booted with
NETWORK_BY_HOST = "network:\n  config: disabled\n"  # the host gives it, as a provider's DHCP does
NETWORK_AS_FROZEN = NETWORK_BY_HOST  # a clone's is up already, and described on its disk for its next boot
NETWORK_BY_DHCP = """version: 2
ethernets:
  eth0:
    dhcp4: true
    dhcp6: false
    accept-ra: false
    link-local: []
"""


def meta_data(record: Record) -> str:
    """JSON is YAML."""
    return json.dumps({"instance-id": record.instance, "local-hostname": record.hostname}) + "\n"


def write_seed(folder: Path, record: Record, user_data: str, network: str) -> None:
    folder.mkdir(mode=0o700)
    files = {"user-data": user_data, "meta-data": meta_data(record), "network-config": network}
    for name, text in files.items():
        file = folder / name
        file.write_text(text)
        file.chmod(0o600)


async def make_seed_disk(folder: Path) -> None:
    """seed.iso of what `write_seed` wrote into `folder`/seed; cloud-init finds it by its volume's name."""
    disk = folder / "seed.iso"
    seed = [str(folder / "seed" / name) for name in ("user-data", "meta-data", "network-config")]
    await run(["genisoimage", "-quiet", "-output", str(disk), "-volid", "cidata", "-joliet", "-rock", *seed])
    if disk.stat().st_size < DISK_BYTES:
        os.truncate(disk, DISK_BYTES)
