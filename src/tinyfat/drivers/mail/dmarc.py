"""DMARC's questions (RFC 7489): which domains are one organisation's, and how strictly it wants them to agree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from publicsuffix2 import PublicSuffixList

from tinyfat.drivers.mail.dns_lookups import Lookups

_RECORD = re.compile(rb"v\s*=\s*DMARC1\s*(?:;|$)")


@dataclass(frozen=True, slots=True)
class DmarcPolicy:
    published: bool
    strict_dkim: bool = False  # adkim=s
    strict_spf: bool = False  # aspf=s


def organisational_domain(domain: str) -> str:
    """RFC 7489 3.2: the public suffix and one label more; an unlisted top-level domain counts as a public suffix."""
    labels = domain.split(".")
    suffix = _suffixes().get_tld(domain) or labels[-1]
    return ".".join(labels[-(suffix.count(".") + 2) :])


def dmarc_policy(domain: str, lookups: Lookups) -> DmarcPolicy:
    """RFC 7489 6.6.3: the domain's own record, else its organisation's. Raises TemporaryDnsError."""
    for name in dict.fromkeys((domain, organisational_domain(domain))):
        records = [record for record in lookups.txt(f"_dmarc.{name}") if _RECORD.match(record)]
        if len(records) == 1:
            tags = dict(_tag(part) for part in records[0].split(b";"))
            return DmarcPolicy(True, tags.get(b"adkim") == b"s", tags.get(b"aspf") == b"s")
    return DmarcPolicy(False)


def _tag(text: bytes) -> tuple[bytes, bytes]:
    name, _, value = text.partition(b"=")
    return name.strip().lower(), value.strip().lower()


@cache
def _suffixes() -> PublicSuffixList:
    """authheaders carries a list years newer than publicsuffix2's own: hosts that give out subdomains keep coming."""
    spec = find_spec("authheaders")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "public_suffix_list.txt"
        if path.is_file():
            return PublicSuffixList(path.read_text(encoding="utf-8").splitlines())
    return PublicSuffixList()
