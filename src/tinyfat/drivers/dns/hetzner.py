"""A zone in the Hetzner Cloud API (docs.hetzner.cloud, "Zones", "Zone RRSets")."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import get_args

from hcloud import Client
from hcloud.zones import BoundZoneRRSet, Zone, ZoneRecord, ZoneRRSet
from hcloud.zones.domain import ZoneRRSetType

from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.drivers.dns.zone_names import of_zone, wanted_set
from tinyfat.drivers.hetzner_cloud import AlreadyThere, Busy, HetznerCloud, NotFound, Refused
from tinyfat.recipes.zone_text import canonical_set, plain, quoted, unquoted

APEX = "@"
TTL_OF_ZONE = 0  # a set made elsewhere without a time to live has its zone's, which we do not look up
_TYPES: dict[str, ZoneRRSetType] = {kind: kind for kind in get_args(ZoneRRSetType)}
_OURS = frozenset(RecordType)


class HetznerDns:
    """Implements ports/dns Dns."""

    def __init__(self, cloud: HetznerCloud, zone: str) -> None:
        self._cloud, self.zone = cloud, plain(zone)

    async def put(self, wanted: RecordSet) -> None:
        found = wanted_set(self.zone, wanted)
        there = await self.look(found.name, found.kind)
        words = f"the {found.kind} records of {found.name}"
        try:
            if there is None:
                await self._cloud.call(f"make {words}", partial(self._create, found))
            elif there != found:
                await self._cloud.call(f"change {words}", partial(self._change, found, there))
        except (AlreadyThere, NotFound) as error:
            await self._see_zone()
            raise Busy(f"{error} They were changed by somebody else meanwhile.") from None

    async def look(self, name: str, kind: RecordType) -> RecordSet | None:
        found = of_zone(self.zone, name)
        try:
            return await self._cloud.call(f"show the {kind} records of {found}", partial(self._read, found, kind))
        except NotFound:
            await self._see_zone()
            return None

    async def remove(self, name: str, kind: RecordType) -> None:
        found = of_zone(self.zone, name)
        try:
            await self._cloud.call(f"remove the {kind} records of {found}", partial(self._delete, found, kind))
        except NotFound:
            await self._see_zone()

    async def kinds_at(self, name: str) -> Sequence[str]:
        found = of_zone(self.zone, name)
        try:
            return await self._cloud.call(f"list the records of {found}", partial(self._kinds, self._relative(found)))
        except NotFound:
            await self._see_zone()
            raise

    async def all(self) -> Sequence[RecordSet]:
        try:
            return await self._cloud.call(f"list the zone {self.zone}", self._list)
        except NotFound:
            await self._see_zone()
            raise

    async def _see_zone(self) -> None:
        """A record that is not found may be so because the whole zone is not."""
        try:
            await self._cloud.call(f"show the zone {self.zone}", lambda client: client.zones.get(self.zone).id)
        except NotFound:
            raise Refused(
                f"At Hetzner there is no zone {self.zone}: add it in the console (DNS), and enter its nameservers at "
                "your registrar."
            ) from None

    # What the threads do.

    def _read(self, name: str, kind: RecordType, client: Client) -> RecordSet:
        zone = Zone(name=self.zone)
        return self._records(client.zones.get_rrset(zone, self._relative(name), _TYPES[kind]))

    def _create(self, wanted: RecordSet, client: Client) -> None:
        client.zones.create_rrset(
            Zone(name=self.zone),
            name=self._relative(wanted.name),
            type=_TYPES[wanted.kind],
            ttl=wanted.ttl,
            records=_written(wanted),
        )

    def _change(self, wanted: RecordSet, there: RecordSet, client: Client) -> None:
        known = self._rrset(wanted.name, wanted.kind)
        if there.values != wanted.values:
            client.zones.set_rrset_records(known, _written(wanted))
        if there.ttl != wanted.ttl:
            client.zones.change_rrset_ttl(known, wanted.ttl)

    def _delete(self, name: str, kind: RecordType, client: Client) -> None:
        client.zones.delete_rrset(self._rrset(name, kind))

    def _list(self, client: Client) -> list[RecordSet]:
        rrsets = client.zones.get_rrset_all(Zone(name=self.zone))
        return [self._records(one) for one in rrsets if one.type in _OURS]

    def _kinds(self, relative: str, client: Client) -> list[str]:
        rrsets = client.zones.get_rrset_all(Zone(name=self.zone), name=relative)
        return sorted(str(one.type) for one in rrsets if one.name == relative)

    def _rrset(self, name: str, kind: RecordType) -> ZoneRRSet:
        return ZoneRRSet(name=self._relative(name), type=_TYPES[kind], zone=Zone(name=self.zone))

    def _relative(self, name: str) -> str:
        return APEX if name == self.zone else name.removesuffix(f".{self.zone}")

    def _records(self, bound: BoundZoneRRSet) -> RecordSet:
        kind = RecordType(bound.type or "")
        values = [record.value for record in bound.records or []]
        name = self.zone if bound.name == APEX else f"{bound.name}.{self.zone}"
        texts = [unquoted(value) if kind is RecordType.TXT else self._absolute(kind, value) for value in values]
        return canonical_set(RecordSet(name, kind, tuple(texts), bound.ttl or TTL_OF_ZONE))

    def _absolute(self, kind: RecordType, value: str) -> str:
        """A name without a dot at its end is one of this zone, "@" the zone itself, as in a zone file."""
        if kind not in (RecordType.CNAME, RecordType.NS, RecordType.MX) or value.endswith("."):
            return value
        *preference, target = value.split()
        return " ".join([*preference, f"{self.zone}." if target == APEX else f"{target}.{self.zone}."])


def _written(wanted: RecordSet) -> list[ZoneRecord]:
    return [ZoneRecord(quoted(value) if wanted.kind is RecordType.TXT else value) for value in wanted.values]
