"""DKIM (RFC 6376, RFC 8301, RFC 8463): does a signature of this domain, or of one related to it, hold?

dkimpy does the cryptography. What it leaves to its callers is decided here: which signatures count at all, and that no
message can make it work for more than moments (its parser and its expressions take quadratic time on some).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import dkim
from dkim.util import InvalidTagValueList, parse_tag_value

from tinyfat.domain.mail.addresses import domain_name
from tinyfat.domain.mail.headers import read_headers
from tinyfat.drivers.mail.dkim_coverage import coverage
from tinyfat.drivers.mail.dns_lookups import Lookups, LookupsSpent, TemporaryDnsError

SIGNATURES_VERIFIED_MAX = 5
SIGNATURES_READ_MAX = 20
SIGNATURE_BYTES_MAX = 4_096
SIGNED_FIELDS_MAX = 200
HEADER_BYTES_MAX = 131_072
HEADER_FIELDS_MAX = 1_000
LINES_MAX = 500_000
KEY_RECORD_BYTES_MAX = 1_200  # a 4096-bit RSA key with room; more bits would hold the processor for seconds
KEY_BITS_MIN = 1_024  # RFC 8301 3.2

ALGORITHMS = (b"rsa-sha256", b"ed25519-sha256")  # RFC 8301 3.1: never sha1

_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,118}[A-Za-z0-9])?")
_SILENT = logging.getLogger("tinyfat.dkim.silent")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


@dataclass(frozen=True, slots=True)
class DkimResult:
    domain: str  # d=, lower case
    result: str  # "pass", "fail", "policy", "permerror", "temperror" (RFC 8601 2.7.1)
    detail: str = ""
    recipients: tuple[str, ...] = ()  # of a pass: whom its signed To and Cc name; it stands for mail to nobody else


def dkim_results(
    raw: bytes, header_bytes: int, lookups: Lookups, could_align: Callable[[str], bool], now: float
) -> list[DkimResult]:
    """Verify the signatures whose domain could align; the others prove nothing here and cost nothing.

    `now`: Unix seconds, for their age.
    """
    if header_bytes > HEADER_BYTES_MAX or raw.count(b"\n") > LINES_MAX:
        return [DkimResult("", "policy", "too many lines")] if re.search(rb"(?i)dkim-signature", raw[:4096]) else []
    try:
        message = dkim.DKIM(raw, logger=_SILENT, minkey=KEY_BITS_MIN)
    except Exception as error:  # dkimpy's parser, on what is no message
        return [DkimResult("", "permerror", type(error).__name__)]
    if len(message.headers) > HEADER_FIELDS_MAX:
        return [DkimResult("", "policy", "too many fields")]
    if sum(1 for name, _ in message.headers if name.lower() == b"from") != 1:
        return [DkimResult("", "policy", "not one From field")]
    values = [value for name, value in message.headers if name.lower() == b"dkim-signature"]
    results: list[DkimResult] = []
    for index, value in enumerate(values[:SIGNATURES_READ_MAX]):
        tags = _tags(value)
        domain = domain_name(tags.get(b"d", b"").decode("ascii", "replace")) or ""
        if domain and could_align(domain) and len(results) < SIGNATURES_VERIFIED_MAX:
            covered = coverage(read_headers(raw).headers, message.body, tags, now)
            if refusal := _refusal(tags) or covered.refusal:
                results.append(DkimResult(domain, "policy", refusal))
            else:
                results.append(_verify(message, index, domain, tags, lookups))
                if results[-1].result == "pass":
                    results[-1] = replace(results[-1], recipients=covered.recipients)
    return results


def _tags(value: bytes) -> dict[bytes, bytes]:
    if len(value) > SIGNATURE_BYTES_MAX:
        return {}
    try:
        return dict(parse_tag_value(value))
    except InvalidTagValueList:
        return {}


def _verify(message: dkim.DKIM, index: int, domain: str, tags: dict[bytes, bytes], lookups: Lookups) -> DkimResult:
    key = _KeyLookup(lookups, tags)
    body = message.body
    if tags.get(b"c", b"").partition(b"/")[2].strip() == b"relaxed":
        # The relaxed form of a relaxed form is itself; made by us it takes linear time.
        message.body = relaxed_body(body)
    try:
        holds = message.verify(idx=index, dnsfunc=key)
    except dkim.DKIMException as error:
        if str(error).startswith("body hash mismatch"):  # what a mailing list's footer does: no error, a failed test
            return DkimResult(domain, "fail", "the body was changed")
        return DkimResult(domain, "permerror", type(error).__name__)
    except Exception as error:  # dkimpy, on a key or signature made to break it
        return DkimResult(domain, "permerror", type(error).__name__)
    finally:
        message.body = body
    if key.unanswered:
        return DkimResult(domain, "temperror", "its key was not to be had")
    return DkimResult(domain, "pass") if holds and not key.refused else DkimResult(domain, "fail", key.refused)


def _refusal(tags: dict[bytes, bytes]) -> str:
    """Why a signature cannot count, before any key is asked for."""
    signed = [name.strip().lower() for name in tags.get(b"h", b"").split(b":")]
    if tags.get(b"a") not in ALGORITHMS:
        return "a=" + tags.get(b"a", b"").decode("ascii", "replace")[:30]
    if b"l" in tags:
        return "l= leaves the end of the body unsigned"  # RFC 6376 8.2
    if b"from" not in signed:
        return "From is not signed"  # RFC 6376 5.4
    if len(signed) > SIGNED_FIELDS_MAX:
        return "too many signed fields"
    if not _SELECTOR.fullmatch(tags.get(b"s", b"").decode("ascii", "replace")):
        return "s= is no selector"
    return ""


class _KeyLookup:
    """dkimpy's `dnsfunc`: a key record, or None. Remembers what dkimpy would swallow."""

    def __init__(self, lookups: Lookups, tags: dict[bytes, bytes]) -> None:
        self._lookups = lookups
        self._tags = tags
        self.unanswered = False
        self.refused = ""

    def __call__(self, name: bytes, timeout: float = 0) -> bytes | None:
        try:
            records = self._lookups.txt(name.decode("ascii").rstrip("."))
        except TemporaryDnsError:
            self.unanswered = True
            return None
        except LookupsSpent:
            return None
        record = next((one for one in records if b"p=" in one), None)
        if record is not None:
            self.refused = self._key_refusal(record)
        return None if self.refused else record

    def _key_refusal(self, record: bytes) -> str:
        """RFC 6376 3.6.1: what the key's own record forbids."""
        try:
            key = parse_tag_value(record)
        except InvalidTagValueList:
            return "its key record is broken"
        flags = [flag.strip() for flag in key.get(b"t", b"").split(b":")]
        identity = self._tags.get(b"i", b"@" + self._tags[b"d"]).rpartition(b"@")[2].strip().lower()
        if len(record) > KEY_RECORD_BYTES_MAX:
            return "its key record is too long"
        if b"y" in flags:
            return "its domain is testing DKIM"
        if b"s" in flags and identity != self._tags[b"d"].strip().lower():
            return "i= is not d=, which t=s asks for"
        if key.get(b"k", b"rsa").strip().lower() != self._tags[b"a"].partition(b"-")[0]:
            return "its key is of another kind than a= says"
        hashes = [one.strip() for one in key.get(b"h", b"sha256").split(b":")]
        return "" if b"sha256" in hashes else "its key is for another hash"


def relaxed_body(body: bytes) -> bytes:
    """RFC 6376 3.4.4 but for its last lines: blanks at line ends dropped, runs of blanks made one."""
    lines = body.split(b"\r\n")
    stripped = b"\r\n".join([*(line.rstrip(b" \t") for line in lines[:-1]), lines[-1]])
    return re.sub(rb"[\t ]+", b" ", stripped)
