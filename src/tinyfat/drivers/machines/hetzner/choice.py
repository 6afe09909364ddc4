"""Which type of server, where, in which order of trying. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from hcloud.server_types import BoundServerType

from tinyfat.ports.machines import MachineRefused

MEMORY_GB_MIN = 4  # OpenClaw needs about 1 GB, its tools (a browser, a compiler) the rest
TYPES_TRIED_MAX = 3  # in each location: the next cheapest costs more. One that is not offered there does not count
ARCHITECTURE = "x86"


@dataclass(frozen=True, slots=True)
class Offer:
    """A type in a location."""

    type: str
    location: str
    price: Decimal  # net, a month, in the project's currency
    memory_gb: float
    disk_gb: float
    architecture: str
    shared: bool
    available: bool  # as the API says, which is sometimes wrong both ways
    deprecated: bool


def offers_of(bound: BoundServerType) -> list[Offer]:
    """`locations` says what is available where; types without it are taken to be everywhere they have a price."""
    places = {one.location.name: one for one in bound.locations or []}
    found = []
    for price in bound.prices or []:
        where = str(price["location"])
        place = places.get(where)
        if places and place is None:
            continue
        found.append(
            Offer(
                bound.name or "",
                where,
                Decimal(str(price["price_monthly"]["net"])),
                float(bound.memory or 0),
                float(bound.disk or 0),
                bound.architecture or "",
                bound.cpu_type == "shared",
                place is None or place.available is not False,
                place is not None and place.deprecation is not None,
            )
        )
    return found


def places(
    offers: Sequence[Offer],
    size: str,
    locations: Sequence[str],
    architecture: str = ARCHITECTURE,
    disk_gb: float = 0,
) -> list[Offer]:
    """What to try, best first: location by location, in each the named size or the cheapest that will do; what is said
    to be sold out comes last. Raises MachineRefused where nothing fits."""
    found = []
    for location in dict.fromkeys(locations):
        here = [one for one in offers if one.location == location and one.architecture == architecture]
        fit = [one for one in here if _fits(one, size) and one.disk_gb >= disk_gb]
        fit.sort(key=lambda one: (not one.available, one.price, one.type))
        found += fit
    if not found:
        wanted = size or f"a shared {architecture} type with {MEMORY_GB_MIN} GB of memory"
        raise MachineRefused(
            f"Hetzner has no {wanted} with {disk_gb:g} GB of disk in {', '.join(locations) or 'any location'}: "
            "set TINYFAT_HETZNER_TYPE or TINYFAT_HETZNER_LOCATIONS."
        )
    return sorted(found, key=lambda one: not one.available)


def _fits(offer: Offer, size: str) -> bool:
    if size:
        return offer.type == size
    return offer.shared and not offer.deprecated and offer.memory_gb >= MEMORY_GB_MIN
