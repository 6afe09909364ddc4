"""Addresses that are kept under a name until they are let go."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from tinyfat.machine_hosts.host_lock import locked
from tinyfat.machine_hosts.machine_host import HostAddress, HostFailed, HostFull
from tinyfat.machine_hosts.records import read_address, write_private, written


class Leases:
    """`pool` is what there is to give. Several processes may share the folder."""

    def __init__(self, folder: Path, pool: Iterable[HostAddress], now: Callable[[], datetime]) -> None:
        self._file = folder / "leases.json"
        self._lock = folder / "leases.lock"
        self._pool = tuple(pool)
        self._now = now

    async def lease(self, name: str) -> HostAddress:
        """The same as before for a name that has one. Raises HostFull where none is left."""
        async with locked(self._lock):
            leased = self._read()
            if name not in leased:
                taken = set(leased.values())
                free = next((address for address in self._pool if address not in taken), None)
                if free is None:
                    raise HostFull(f"All {len(self._pool)} addresses of this host are in use: remove machines.")
                leased[name] = replace(free, leased_at=self._now())
                self._write(leased)
            return leased[name]

    async def release(self, name: str) -> None:
        async with locked(self._lock):
            leased = self._read()
            if leased.pop(name, None) is not None:
                self._write(leased)

    def all(self) -> Mapping[str, HostAddress]:
        return self._read()

    def _read(self) -> dict[str, HostAddress]:
        try:
            return {name: read_address(body) for name, body in json.loads(self._file.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise HostFailed(f"{self._file} cannot be read: {error}.") from error

    def _write(self, leased: Mapping[str, HostAddress]) -> None:
        write_private(self._file, json.dumps({name: written(address) for name, address in leased.items()}, indent=1))
