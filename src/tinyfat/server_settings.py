"""The settings of machines that are whole servers, of names in the DNS, and of the way in for boxes elsewhere.

A part of settings.py, which alone reads them from the environment.
"""

from __future__ import annotations

import ipaddress
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from tinyfat.domain.agents import RuntimeKind
from tinyfat.domain.enrolment import is_acme_url
from tinyfat.drivers.authorities.sites import VALID_SECONDS, VALID_SECONDS_MIN
from tinyfat.listen_address import Address, address

HETZNER_URL = "https://api.hetzner.cloud/v1"
CLOUDFLARE_URL = "https://api.cloudflare.com/client/v4"
MACHINE_KINDS = ("process", "docker", "nspawn", "local_vm", "hetzner")
SERVER_KINDS = ("nspawn", "local_vm", "hetzner")
DNS_KINDS = ("none", "local", "hetzner", "cloudflare")
SITE_CERTIFICATES = ("acme", "own")
ACME_URL = "https://acme-v02.api.letsencrypt.org/directory"
POOL_MAX = 50  # machines kept waiting in one location: each costs money

_LOCATION = re.compile("[a-z]{3}[0-9]{0,2}")

Pool: TypeAlias = tuple[tuple[str, int], ...]


def _one_of(kinds: tuple[str, ...]) -> Any:
    def check(value: object) -> str:
        text = str(value).strip().lower()
        if text not in kinds:
            raise ValueError(f"{value!r} is not one of: {', '.join(kind or '(empty)' for kind in kinds)}")
        return text

    return BeforeValidator(check)


def _maybe_address(value: object) -> Address | None:
    return None if value is None or value == "" else address(value)


def _https_url(value: object) -> str:
    text = str(value or "").strip().rstrip("/")
    parts = urlsplit(text)
    if text and (parts.scheme != "https" or not parts.hostname or parts.path):
        raise ValueError(f"{text!r} is not https://HOST[:PORT]")
    return text


def _api_url(value: object) -> str:
    text = str(value).strip().rstrip("/")
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).hostname:
        raise ValueError(f"{text!r} is not an http:// or https:// URL")
    return text


def _directory_url(value: object) -> str:
    text = _api_url(value)
    if not is_acme_url(text):
        raise ValueError(f"{text!r} is not the https:// URL of an ACME directory, without a query")
    return text


def _locations(value: object) -> tuple[str, ...]:
    for word in (words := _words(value)):
        if not _LOCATION.fullmatch(word):
            raise ValueError(f"{word!r} is no location of Hetzner's, such as fsn1 or ash")
    return words


def _socket_url(value: object) -> str:
    text = str(value).strip()
    parts = urlsplit(text)
    if not ((parts.scheme == "unix" and parts.path) or (parts.scheme in ("http", "https", "tcp") and parts.hostname)):
        raise ValueError(f"{value!r} is not unix:///PATH or http(s)://HOST:PORT")
    return text


def _maybe_api_url(value: object) -> str:
    return _api_url(value) if value else ""


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, tuple | list):
        return tuple(map(str, value))
    return tuple(str(value).replace(",", " ").split())


def _cidrs(value: object) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(word, strict=False)) for word in _words(value))
    except ValueError as error:
        raise ValueError(f"{error}: networks are written such as 192.0.2.0/24, 2001:db8::/32") from None


def _pool(value: object) -> Pool:
    """ "fsn1=2, nbg1=1", or a table in tinyfat.toml."""
    if isinstance(value, tuple):
        return value
    pairs = value.items() if isinstance(value, dict) else [word.partition("=")[::2] for word in _words(value)]
    found: dict[str, int] = {}
    for location, count in pairs:
        if not location or not str(count).isdigit() or not 0 <= int(count) <= POOL_MAX:
            raise ValueError(f"{location}={count} is not LOCATION=COUNT with 0 to {POOL_MAX} machines")
        found[str(location)] = int(count)
    return tuple(found.items())


def _rate(value: object) -> Decimal:
    try:
        rate = Decimal(str(value))
    except ArithmeticError:
        raise ValueError(f"{value!r} is not a number") from None
    if not Decimal("0.1") < rate < Decimal(10):
        raise ValueError(f"{value} dollars for a euro?")
    return rate


class ServerSettings(BaseModel):
    """Mixed into Settings."""

    machine: Annotated[str, _one_of(MACHINE_KINDS)] = "process"
    box_listen: Annotated[Address | None, NoDecode, BeforeValidator(_maybe_address)] = None
    box_url: Annotated[str, BeforeValidator(_https_url)] = ""
    box_relay_listen: Annotated[Address | None, NoDecode, BeforeValidator(_maybe_address)] = None
    box_relay_url: Annotated[str, BeforeValidator(_https_url)] = ""
    image: str = ""
    pool: Annotated[Pool, NoDecode, BeforeValidator(_pool)] = ()
    pool_runtime: Annotated[str, _one_of(tuple(RuntimeKind))] = "openclaw"
    ssh_networks: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_cidrs)] = ("0.0.0.0/0", "::/0")
    hetzner_token: SecretStr | None = None
    hetzner_url: Annotated[str, BeforeValidator(_api_url)] = HETZNER_URL
    hetzner_type: str = ""
    hetzner_locations: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_locations)] = ("fsn1", "nbg1", "hel1")
    euro: Annotated[Decimal, BeforeValidator(_rate)] = Decimal("1.10")  # dollars; vendors' prices in euros are told so
    site_certificates: Annotated[str, _one_of(("", *SITE_CERTIFICATES))] = ""  # "": by what the machines are
    site_certificate_seconds: Annotated[int, Field(ge=VALID_SECONDS_MIN, le=VALID_SECONDS)] = VALID_SECONDS
    acme_url: Annotated[str, BeforeValidator(_directory_url)] = ACME_URL
    acme_ca: Path | None = None  # PEM: what vouches for the ACME server itself
    docker_url: Annotated[str, BeforeValidator(_socket_url)] = "unix:///var/run/docker.sock"
    dns: Annotated[str, _one_of(DNS_KINDS)] = "none"
    dns_token: SecretStr | None = None  # Cloudflare's; for Hetzner the token of its machines unless set
    dns_url: Annotated[str, BeforeValidator(_maybe_api_url)] = ""
    dns_listen: Annotated[Address, NoDecode, BeforeValidator(address)] = Field(
        default_factory=lambda: Address("127.0.0.1", 8053)
    )
