"""Keeps virtual machines off this host's loopback: under QEMU's user network a guest's 10.0.2.2 is our 127.0.0.1.

A guest dials through sockets of its QEMU, so the kernel knows whose they are: the QEMUs of one folder run in one
control group, and nftables lets that group begin connections to this host at the named ports alone, and ask its name
servers. What leaves this host stays free: QEMU's own `restrict=on` would take the whole Internet from the guest.

https://wiki.nftables.org/wiki-nftables/index.php/Matching_packet_metainformation (socket cgroupv2)
https://www.qemu.org/docs/master/system/invocation.html (-netdev user)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tinyfat.machine_hosts.cgroups import PARENT
from tinyfat.machine_hosts.host_lock import locked
from tinyfat.machine_hosts.programs import require, run

CGROUP_ROOT = Path("/sys/fs/cgroup")  # where nft(8) looks a control group's path up
DNS_PORT = 53
_PROGRAMS = {"nft": "nftables"}


class LoopbackGuard:
    """`key`: of the folder whose machines they are, [a-z0-9]."""

    def __init__(self, key: str, mounts: str) -> None:
        """`mounts`: the text of /proc/self/mounts."""
        roots = [Path(row.split()[1]) for row in mounts.splitlines() if row.split()[2] == "cgroup2"]
        self._folder = roots[0] / PARENT / f"vm-{key}" if roots else None
        self._table = f"tinyfat_vm_{key}"

    @property
    def possible(self) -> bool:
        """Firewalls are root's to make."""
        return os.geteuid() == 0 and self._folder is not None and self._folder.is_relative_to(CGROUP_ROOT)

    async def up(self, ports: Sequence[int], rules: Path) -> Path:
        """Before a machine starts, and whenever `ports` change; `rules`: a file for them. What a process writes its id
        into, so that it is guarded. Raises HostRefused, HostFailed."""
        assert self._folder is not None
        require(_PROGRAMS)
        self._folder.mkdir(parents=True, exist_ok=True)
        async with locked(rules.with_suffix(".lock")):
            rules.write_text(ruleset(self._table, str(self._folder.relative_to(CGROUP_ROOT)), ports))
            await run(["nft", "-f", str(rules)])
        return self._folder / "cgroup.procs"

    async def down(self, rules: Path) -> None:
        """Where no machine is left; twice is once."""
        if not rules.exists():
            return
        rules.write_text(f"table inet {self._table}\ndelete table inet {self._table}\n")
        await run(["nft", "-f", str(rules)])
        rules.unlink()
        assert self._folder is not None
        with suppress(OSError):  # not empty: somebody else's are in the parent
            self._folder.rmdir()
            self._folder.parent.rmdir()


def ruleset(table: str, cgroup: str, ports: Sequence[int]) -> str:
    """nft(8). Replaced as a whole; `cgroup` is two levels below its hierarchy's root and is known by its inode, so it
    is there first. Answers to whoever dialled the machine are not new."""
    admitted = ", ".join(str(port) for port in sorted(ports))
    accept = f"tcp dport {{ {admitted} }} accept" if admitted else ""
    return f"""\
table inet {table}
delete table inet {table}
table inet {table} {{
    chain guests {{
        {accept}
        udp dport {DNS_PORT} accept
        tcp dport {DNS_PORT} accept
        meta l4proto tcp reject with tcp reset
        reject
    }}
    chain output {{
        type filter hook output priority filter; policy accept;
        oifname "lo" socket cgroupv2 level 2 "{cgroup}" ct state new goto guests
    }}
}}
"""
