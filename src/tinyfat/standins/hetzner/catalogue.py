"""What is for sale: locations, server types, system images, and the price list. The prices are of the kind the
vendor asks (net, euro, late 2025); nobody may rely on the figures, only on reading them from here."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

CURRENCY = "EUR"
VAT_PERCENT = Decimal(19)
HOURS_A_MONTH = 624  # what the vendor's own monthly cap comes to
INCLUDED_TRAFFIC_BYTES = 20 * 1024**4
IMAGE_PER_GB_MONTH = Decimal("0.0110")
VOLUME_PER_GB_MONTH = Decimal("0.0440")
FLOATING_IPV4_MONTH = Decimal("3.0000")
FLOATING_IPV6_MONTH = Decimal("1.0000")
PRIMARY_IPV4_MONTH = Decimal("0.5000")
TRAFFIC_PER_TB = Decimal("1.0000")
CREATED = "2025-09-01T00:00:00+00:00"


@dataclass(frozen=True, slots=True)
class Location:
    id: int
    name: str
    city: str
    country: str
    zone: str
    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class ServerType:
    id: int
    name: str
    cores: int
    memory_gb: int
    disk_gb: int
    architecture: str
    category: str
    months: dict[str, Decimal]  # net price by location; where there is none it is not sold


@dataclass(frozen=True, slots=True)
class SystemImage:
    id: int
    name: str
    flavour: str
    version: str
    architecture: str


LOCATIONS = (
    Location(1, "fsn1", "Falkenstein", "DE", "eu-central", 50.47612, 12.370071),
    Location(2, "nbg1", "Nuremberg", "DE", "eu-central", 49.452102, 11.076665),
    Location(3, "hel1", "Helsinki", "FI", "eu-central", 60.169855, 24.938379),
    Location(4, "ash", "Ashburn, VA", "US", "us-east", 39.045821, -77.487073),
    Location(5, "hil", "Hillsboro, OR", "US", "us-west", 45.54222, -122.951924),
    Location(6, "sin", "Singapore", "SG", "ap-southeast", 1.283333, 103.833333),
)
_EUROPE = ("fsn1", "nbg1", "hel1")
_AMERICA = ("ash", "hil")


def _sold(europe: str, america: str = "", asia: str = "") -> dict[str, Decimal]:
    where = ((_EUROPE, europe), (_AMERICA, america), (("sin",), asia))
    return {name: Decimal(price) for names, price in where if price for name in names}


SERVER_TYPES = (
    ServerType(114, "cx23", 2, 4, 40, "x86", "cost_optimized", _sold("3.4900")),
    ServerType(115, "cx33", 4, 8, 80, "x86", "cost_optimized", _sold("5.4900")),
    ServerType(116, "cx43", 8, 16, 160, "x86", "cost_optimized", _sold("9.4900")),
    ServerType(45, "cax11", 2, 4, 40, "arm", "cost_optimized", _sold("3.7900")),
    ServerType(22, "cpx11", 2, 2, 40, "x86", "regular_purpose", _sold("4.3500", "4.4900", "5.9900")),
    ServerType(108, "cpx22", 2, 4, 80, "x86", "regular_purpose", _sold("6.4900", "7.9900", "9.9900")),
)
SYSTEM_IMAGES = (
    SystemImage(114690387, "debian-12", "debian", "12", "x86"),
    SystemImage(114690389, "debian-12", "debian", "12", "arm"),
    SystemImage(310557660, "debian-13", "debian", "13", "x86"),
    SystemImage(310557662, "debian-13", "debian", "13", "arm"),
    SystemImage(161547269, "ubuntu-24.04", "ubuntu", "24.04", "x86"),
)
_BY_NAME = {location.name: location for location in LOCATIONS}


def location(id_or_name: object) -> Location | None:
    return next((each for each in LOCATIONS if str(id_or_name) in (each.name, str(each.id))), None)


def server_type(id_or_name: object) -> ServerType | None:
    return next((each for each in SERVER_TYPES if str(id_or_name) in (each.name, str(each.id))), None)


def datacenter_name(name: str) -> str:
    return f"{name}-dc{_BY_NAME[name].id}"


def price(net: Decimal) -> dict[str, str]:
    return {"net": f"{net:.10f}", "gross": f"{net * (100 + VAT_PERCENT) / 100:.16f}"}


def _per_time(month: Decimal) -> dict[str, Any]:
    return {"price_hourly": price(month / HOURS_A_MONTH), "price_monthly": price(month)}


def _server_prices(kind: ServerType) -> list[dict[str, Any]]:
    traffic = {"included_traffic": INCLUDED_TRAFFIC_BYTES, "price_per_tb_traffic": price(TRAFFIC_PER_TB)}
    return [{"location": name, **_per_time(month), **traffic} for name, month in kind.months.items()]


def location_wire(each: Location) -> dict[str, Any]:
    return {
        "id": each.id,
        "name": each.name,
        "description": f"{each.city} DC Park 1",
        "country": each.country,
        "city": each.city,
        "latitude": each.latitude,
        "longitude": each.longitude,
        "network_zone": each.zone,
    }


@cache
def datacenter_wire(name: str) -> dict[str, Any]:
    sold = [kind.id for kind in SERVER_TYPES if name in kind.months]
    return {
        "id": _BY_NAME[name].id,
        "name": datacenter_name(name),
        "description": f"{_BY_NAME[name].city} 1 virtual DC",
        "location": location_wire(_BY_NAME[name]),
        "server_types": {"supported": sold, "available": sold, "available_for_migration": sold},
    }


def _sold_at(name: str) -> dict[str, Any]:
    return {"id": _BY_NAME[name].id, "name": name, "deprecation": None, "available": True, "recommended": True}


def server_type_wire(kind: ServerType) -> dict[str, Any]:
    return _type_wire(SERVER_TYPES.index(kind))


@cache
def _type_wire(index: int) -> dict[str, Any]:
    kind = SERVER_TYPES[index]
    return {
        "id": kind.id,
        "name": kind.name,
        "description": kind.name.upper(),
        "category": kind.category,
        "cores": kind.cores,
        "memory": float(kind.memory_gb),
        "disk": kind.disk_gb,
        "storage_type": "local",
        "cpu_type": "shared",
        "architecture": kind.architecture,
        "deprecated": False,
        "deprecation": None,
        "prices": _server_prices(kind),
        "locations": [_sold_at(name) for name in kind.months],
    }


def pricing_wire() -> dict[str, Any]:
    everywhere = list(_BY_NAME)
    by_type = {"ipv4": (PRIMARY_IPV4_MONTH, FLOATING_IPV4_MONTH), "ipv6": (Decimal(0), FLOATING_IPV6_MONTH)}
    return {
        "currency": CURRENCY,
        "vat_rate": f"{VAT_PERCENT:.10f}",
        "image": {"price_per_gb_month": price(IMAGE_PER_GB_MONTH)},
        "floating_ip": {"price_monthly": price(FLOATING_IPV4_MONTH)},
        "floating_ips": [
            {"type": kind, "prices": [{"location": name, "price_monthly": price(net)} for name in everywhere]}
            for kind, (_, net) in by_type.items()
        ],
        "primary_ips": [
            {"type": kind, "prices": [{"location": name, **_per_time(net)} for name in everywhere]}
            for kind, (net, _) in by_type.items()
        ],
        "server_types": [{"id": k.id, "name": k.name, "prices": _server_prices(k)} for k in SERVER_TYPES],
        "load_balancer_types": [],
        "server_backup": {"percentage": f"{Decimal(20):.10f}"},
        "volume": {"price_per_gb_month": price(VOLUME_PER_GB_MONTH)},
    }
