"""Names in the DNS: what `name.DOMAIN` says, and what the domain's mail needs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

TTL_SECONDS = 60  # of an agent's name: it follows the agent to another machine within a minute


class RecordType(StrEnum):
    A = "A"
    AAAA = "AAAA"
    CNAME = "CNAME"
    MX = "MX"
    TXT = "TXT"
    NS = "NS"
    SOA = "SOA"


@dataclass(frozen=True, slots=True)
class RecordSet:
    """An RRset: all records of one name and type (RFC 2181 section 5)."""

    name: str  # fully qualified, lower case, without a dot at its end
    kind: RecordType
    values: tuple[str, ...]  # as in a zone file, but a TXT's text unquoted and whole; sorted
    ttl: int = TTL_SECONDS  # seconds
