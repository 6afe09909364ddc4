"""Names of one zone, and what is no name of it."""

from __future__ import annotations

from tinyfat.domain.names import RecordSet
from tinyfat.ports.dns import DnsRefused
from tinyfat.recipes.zone_text import canonical_set, plain


def of_zone(zone: str, name: str) -> str:
    """The name in its plain form. Raises DnsRefused for one outside the zone."""
    found = plain(name)
    if found != zone and not found.endswith(f".{zone}"):
        raise DnsRefused(f"{name} is not in the zone {zone}.")
    return found


def wanted_set(zone: str, records: RecordSet) -> RecordSet:
    """In its canonical form. Raises DnsRefused for what is no RRset of this zone."""
    of_zone(zone, records.name)
    try:
        found = canonical_set(records)
    except ValueError as error:
        raise DnsRefused(f"The {records.kind} records of {records.name} cannot be written: {error}.") from error
    if not found.values:
        raise DnsRefused(f"The {records.kind} records of {records.name} are none: remove them instead.")
    return found
