"""What the vendor's name servers answer: the zones as they were some seconds ago."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import dns.rdata
import dns.rdtypes.txtbase

from tinyfat.dns_server.answering import ServedZone
from tinyfat.domain.names import RecordSet, RecordType

Key = tuple[str, RecordType]


@dataclass(frozen=True, slots=True)
class _Change:
    at: float  # Unix seconds
    zone: str
    key: Key | None  # None: the zone itself comes, or goes
    records: RecordSet | None  # None: gone


@dataclass(slots=True)
class Published:
    now: Callable[[], float]
    delay_seconds: float
    _zones: dict[str, dict[Key, RecordSet]] = field(default_factory=dict)
    _coming: deque[_Change] = field(default_factory=deque)

    def put(self, zone: str, records: RecordSet) -> None:
        self._change(zone, (records.name, records.kind), records)

    def remove(self, zone: str, key: Key) -> None:
        self._change(zone, key, None)

    def remove_zone(self, zone: str) -> None:
        self._change(zone, None, None)

    def _change(self, zone: str, key: Key | None, records: RecordSet | None) -> None:
        self._coming.append(_Change(self.now() + self.delay_seconds, zone, key, records))

    def zones(self) -> Sequence[ServedZone]:
        """For the DNS server, as they are to be seen now."""
        now = self.now()
        while self._coming and self._coming[0].at <= now:
            self._take(self._coming.popleft())
        return [ServedZone(name, records.copy) for name, records in self._zones.items()]

    def _take(self, change: _Change) -> None:
        if change.key is None:
            self._zones.pop(change.zone, None)
        elif change.records is None:
            self._zones.get(change.zone, {}).pop(change.key, None)
        else:
            self._zones.setdefault(change.zone, {})[change.key] = change.records


def text_of(rdata: dns.rdata.Rdata) -> str:
    """A record's value as RecordSet has it: names absolute, a TXT's text whole and unquoted."""
    if isinstance(rdata, dns.rdtypes.txtbase.TXTBase):
        return b"".join(rdata.strings).decode("utf-8", "surrogateescape")
    return rdata.to_text()
