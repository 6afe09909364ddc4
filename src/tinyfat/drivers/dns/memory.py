"""Names that are entries of a dictionary, for tests; and the lies a provider tells, to be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.drivers.dns.zone_names import of_zone, wanted_set
from tinyfat.ports.dns import DnsRefused, DnsUnreachable


@dataclass(slots=True)
class DnsLies:
    """Each number is used up: that many calls are lied to, and then the truth is told."""

    refuse: int = 0
    unreachable: int = 0
    put_nothing: int = 0  # acknowledged, and nothing comes of it
    remove_nothing: int = 0
    put_unanswered: int = 0  # done, and the answer is lost

    def told(self, name: str) -> bool:
        left: int = getattr(self, name)
        setattr(self, name, max(0, left - 1))
        return left > 0


@dataclass(slots=True)
class MemoryDns:
    """Implements ports/dns Dns."""

    zone: str
    lies: DnsLies = field(default_factory=DnsLies)
    records: dict[tuple[str, RecordType], RecordSet] = field(default_factory=dict)

    async def put(self, wanted: RecordSet) -> None:
        self._reach()
        found = wanted_set(self.zone, wanted)
        if self.lies.told("put_nothing"):
            return
        self.records[found.name, found.kind] = found
        if self.lies.told("put_unanswered"):
            raise DnsUnreachable("The provider of names did not answer.")

    async def look(self, name: str, kind: RecordType) -> RecordSet | None:
        self._reach()
        return self.records.get((of_zone(self.zone, name), kind))

    async def remove(self, name: str, kind: RecordType) -> None:
        self._reach()
        if not self.lies.told("remove_nothing"):
            self.records.pop((of_zone(self.zone, name), kind), None)

    async def kinds_at(self, name: str) -> Sequence[str]:
        self._reach()
        found = of_zone(self.zone, name)
        return sorted(str(kind) for at, kind in self.records if at == found)

    async def all(self) -> Sequence[RecordSet]:
        self._reach()
        return list(self.records.values())

    def _reach(self) -> None:
        if self.lies.told("unreachable"):
            raise DnsUnreachable("The provider of names does not answer.")
        if self.lies.told("refuse"):
            raise DnsRefused("The provider of names refused.")
