"""What settings say together, and the files they name: what cannot be, whether what it is for is switched on or not."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyfat.listen_address import Address
from tinyfat.server_settings import SERVER_KINDS

if TYPE_CHECKING:
    from tinyfat.settings import Settings

_FILES = ("smtp_certificate", "smtp_certificate_key", "dkim_key", "acme_ca")
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared, not listened on


def refusals(settings: Settings) -> Iterator[str]:
    """A sentence for each thing that cannot be."""
    if settings.disk_alarm < settings.disk_floor:
        yield "TINYFAT_DISK_ALARM is under TINYFAT_DISK_FLOOR: the alarm is to come before the refusal."
    if (settings.smtp_certificate is None) != (settings.smtp_certificate_key is None):
        yield "TINYFAT_SMTP_CERTIFICATE and TINYFAT_SMTP_CERTIFICATE_KEY are set together or not at all."
    unreadable = [name for name in _FILES if not _readable(getattr(settings, name))]
    for name in unreadable:
        yield f"TINYFAT_{name.upper()}: {getattr(settings, name)} is not there or cannot be read."
    if "dkim_key" not in unreadable:
        yield from _dkim_key(settings.dkim_key)
    if settings.smtp_certificate and settings.smtp_certificate_key and not unreadable:
        yield from _certificate(settings.smtp_certificate, settings.smtp_certificate_key)
    yield from _listeners(settings)
    yield from _servers(settings)


def _readable(file: Path | None) -> bool:
    return file is None or (file.is_file() and os.access(file, os.R_OK))


def _dkim_key(file: Path | None) -> Iterator[str]:
    if file is None:
        return
    # Here, not above: every command reads the settings, and few have a key.
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        fine = isinstance(load_pem_private_key(file.read_bytes(), password=None), RSAPrivateKey)
    except (ValueError, TypeError, OSError):
        fine = False
    if not fine:
        yield f"TINYFAT_DKIM_KEY: {file} is no RSA private key in PEM; `openssl genrsa -out dkim.pem 2048` makes one."


def _certificate(certificate: Path, key: Path) -> Iterator[str]:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError):
        yield f"TINYFAT_SMTP_CERTIFICATE: {certificate} is no PEM that fits {key}, a key without a password."


def _listeners(settings: Settings) -> Iterator[str]:
    names = ("smtp_listen", "http_listen", "relay_listen", "box_listen", "box_relay_listen")
    set_ones: Sequence[tuple[str, Address]] = [
        (f"TINYFAT_{name.upper()}", wanted) for name in names if (wanted := getattr(settings, name)) is not None
    ]
    for (one, here), (other, there) in combinations(set_ones, 2):
        same_host = here.host == there.host or here.host in _ANYWHERE or there.host in _ANYWHERE
        if here.port == there.port and same_host:
            yield f"{one} and {other} are both {there}: each listener has a port of its own."


def _servers(settings: Settings) -> Iterator[str]:
    """Servers need a way in for their boxes, and their vendors a token."""
    if settings.machine == "hetzner" and settings.hetzner_token is None:
        yield (
            "TINYFAT_HETZNER_TOKEN is not set: make one with read and write access in the Hetzner console, "
            "Security, API tokens."
        )
    if settings.machine == "hetzner" and not settings.box_url:
        yield (
            "TINYFAT_BOX_URL is not set: the https:// address at which servers at Hetzner reach this machine, "
            "with TINYFAT_BOX_LISTEN behind it."
        )
    if settings.machine == "docker" and not settings.image:
        yield "TINYFAT_IMAGE is not set: `tinyfat image build --driver docker` makes the image and prints its name."
    if settings.dns in ("hetzner", "cloudflare") and settings.dns_zone_token is None:
        yield f"TINYFAT_DNS is {settings.dns}, and TINYFAT_DNS_TOKEN is not set."
    if settings.pool and settings.machine not in SERVER_KINDS:
        yield f"TINYFAT_POOL keeps servers ready, and TINYFAT_MACHINE is {settings.machine}."


def complaint_words(error: Any) -> str:
    """What pydantic says of a value, in words for people. The value may be a secret, and is not said."""
    limits = error.get("ctx") or {}
    match error["type"]:
        case "int_parsing" | "int_type" | "int_from_float":
            return "is not a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return "is not a number"
        case "bool_parsing" | "bool_type":
            return "is not true or false"
        case "greater_than_equal":
            return f"is to be {limits['ge']:,} at least"
        case "less_than_equal":
            return f"is to be {limits['le']:,} at most"
        case "greater_than":
            return f"is to be more than {limits['gt']:,}"
        case "tuple_type" | "list_type" | "dict_type" | "model_type":
            return "is not a list of entries, as tinyfat.toml has them"
        case "missing":
            return "is missing"
        case _:
            return str(error["msg"]).removeprefix("Value error, ")
