"""Our own zone: records in a file, answered for by our own server (dns_server) where the control plane runs."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.drivers.dns.zone_names import of_zone, wanted_set
from tinyfat.ports.dns import DnsUnreachable
from tinyfat.recipes.zone_text import plain

Records = dict[tuple[str, RecordType], RecordSet]


class LocalDns:
    """Implements ports/dns Dns. Several processes may share the file; each sees at once what another wrote."""

    def __init__(self, file: Path, zone: str) -> None:
        self.zone = plain(zone)
        self._file = file
        self._known: tuple[tuple[int, int], Records] | None = None

    async def put(self, wanted: RecordSet) -> None:
        found = wanted_set(self.zone, wanted)
        await asyncio.to_thread(self._change, lambda records: records.update({(found.name, found.kind): found}))

    async def look(self, name: str, kind: RecordType) -> RecordSet | None:
        return self.lookup(of_zone(self.zone, name), kind)

    async def remove(self, name: str, kind: RecordType) -> None:
        key = of_zone(self.zone, name), kind
        await asyncio.to_thread(self._change, lambda records: records.pop(key, None))

    async def kinds_at(self, name: str) -> Sequence[str]:
        found = of_zone(self.zone, name)
        return sorted(str(kind) for at, kind in self.records() if at == found)

    async def all(self) -> Sequence[RecordSet]:
        return list(self.records().values())

    def lookup(self, name: str, kind: RecordType) -> RecordSet | None:
        """For the server: a look at the file's age, and its content where it changed. Raises DnsUnreachable."""
        return self.records().get((name, kind))

    def records(self) -> Records:
        """Raises DnsUnreachable where the file cannot be read."""
        try:
            stat = self._file.stat()
            age = stat.st_mtime_ns, stat.st_ino
            if self._known is None or self._known[0] != age:
                self._known = age, _read(json.loads(self._file.read_text()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DnsUnreachable(f"The names in {self._file} cannot be read: {error!r}. Mend or remove it.") from None
        return self._known[1]

    def _change(self, change: Callable[[Records], object]) -> None:
        try:
            with self._locked():
                records = dict(self.records())
                change(records)
                self._write(records)
        except OSError as error:
            raise DnsUnreachable(f"The names in {self._file} cannot be written: {error}.") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self._file.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, records: Records) -> None:
        """A new file in the old one's place: a reader sees one or the other, a power cut leaves one of them."""
        rows = [[one.name, one.kind, list(one.values), one.ttl] for _, one in sorted(records.items())]
        new = self._file.with_suffix(".new")
        with open(new, "w") as file:
            json.dump(rows, file, indent=0)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._file)


def _read(rows: list[tuple[str, str, list[str], int]]) -> Records:
    found = [RecordSet(name, RecordType(kind), tuple(values), ttl) for name, kind, values, ttl in rows]
    return {(one.name, one.kind): one for one in found}
