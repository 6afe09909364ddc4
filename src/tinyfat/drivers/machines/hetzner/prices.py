"""What things cost a month, by the provider's own list (`GET /pricing`). Pure.

Net prices: value added tax is the operator's own story.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from tinyfat.ports.machines import MachinesUnreachable

NANO = Decimal(1_000_000_000)


@dataclass(frozen=True, slots=True)
class Prices:
    """All in nano-dollars a month. What the list does not have costs 0."""

    servers: Mapping[tuple[str, str], int]  # type, location
    addresses: Mapping[tuple[str, str], int]  # "ipv4" or "ipv6", location
    image_gb: int
    volume_gb: int

    def server(self, kind: str, location: str) -> int:
        return self.servers.get((kind, location), 0)

    def address(self, kind: str, location: str) -> int:
        return self.addresses.get((kind, location), 0)


def prices_of(answer: Mapping[str, Any], euro: Decimal) -> Prices:
    """`euro`: dollars for one. Raises MachinesUnreachable where the list cannot be read."""
    try:
        pricing = answer["pricing"]
        rate = _rate(str(pricing["currency"]), euro)
        return Prices(
            _by_location(pricing["server_types"], "name", rate),
            _by_location(pricing["primary_ips"], "type", rate),
            _nano(pricing["image"]["price_per_gb_month"], rate),
            _nano(pricing["volume"]["price_per_gb_month"], rate),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise MachinesUnreachable(f"Hetzner's price list cannot be read: {error!r}.") from None


def _rate(currency: str, euro: Decimal) -> Decimal:
    match currency:
        case "EUR":
            return euro
        case "USD":
            return Decimal(1)
    raise ValueError(f"prices in {currency}")


def _by_location(things: Any, key: str, rate: Decimal) -> dict[tuple[str, str], int]:
    return {
        (str(thing[key]), str(price["location"])): _nano(price["price_monthly"], rate)
        for thing in things
        for price in thing["prices"]
    }


def _nano(price: Mapping[str, Any], rate: Decimal) -> int:
    return int((Decimal(str(price["net"])) * rate * NANO).to_integral_value(ROUND_HALF_UP))
