"""What cloud-init reads on a machine of this host: its NoCloud data source, files in a folder.

https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
"""

from __future__ import annotations

import json
from pathlib import Path

from tinyfat.machine_hosts.records import Record

NETWORK_BY_HOST = "network:\n  config: disabled\n"  # the host gives it, as a provider's DHCP does
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
