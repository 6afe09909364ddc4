"""What we ask of whoever serves our domain's names.

DnsError
├── DnsRefused      the provider will not do it as asked: wrong token, no such zone
└── DnsUnreachable  no answer, or over its limit; whether it was done is unknown: ask again
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tinyfat.domain.names import RecordSet, RecordType


class DnsError(Exception):
    """The provider of names failed."""


class DnsRefused(DnsError):
    """The provider refused; asking again will not help."""


class DnsUnreachable(DnsError):
    """The provider did not answer, or asked us to come back later; nothing is known."""


class Dns(Protocol):
    """One zone. Every call may be made twice and then has the effect of one."""

    @property
    def zone(self) -> str:
        """Without a dot at its end."""

    async def put(self, wanted: RecordSet) -> None:
        """The whole RRset (RFC 2181 section 5) becomes this one."""

    async def look(self, name: str, kind: RecordType) -> RecordSet | None:
        """What the provider's own list says now, not what a cache somewhere does."""

    async def remove(self, name: str, kind: RecordType) -> None:
        """Gone already is well."""

    async def kinds_at(self, name: str) -> Sequence[str]:
        """The types of all records at exactly this name, those included that RecordType does not have; sorted."""

    async def all(self) -> Sequence[RecordSet]:
        """Every RRset of the zone, whoever made it."""
