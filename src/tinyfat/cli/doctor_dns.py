"""`tinyfat doctor --dns`: what the domain's mail needs in the DNS, and what the DNS really answers."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import dns.exception
import dns.nameserver
import dns.resolver
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tinyfat.domain.names import RecordType
from tinyfat.recipes.dns_records import (
    Answers,
    MailTerms,
    RecordFinding,
    Verdict,
    mail_records,
    zone_lines,
)
from tinyfat.recipes.zone_text import canonical, plain

LOOKUP_SECONDS_MAX = 5.0
DNS_PORT = 53

Ask = Callable[[str, RecordType], Answers]


@dataclass(frozen=True, slots=True)
class DnsFinding:
    """One line of the report. `verdict`: "ok", "note" (mail goes without it), "wrong", as `doctor` has them."""

    what: str
    verdict: str
    words: str
    advice: str = ""  # what to enter


def dns_findings(terms: MailTerms, ask: Ask) -> Iterator[DnsFinding]:
    """Looks every record up, one after the other; at most LOOKUP_SECONDS_MAX for each."""
    for record in mail_records(terms):
        finding = record.judged(ask(record.wanted.name, record.wanted.kind))
        yield _in_words(finding)
        if record.what == "MX" and finding.verdict is Verdict.OK:
            yield from _exchanges(finding.found, ask)
    yield from _policy_host(terms, ask)


def resolver_of(nameservers: Sequence[str]) -> Ask:
    """`nameservers`: IP or IP:PORT; none: the system's. Raises ValueError."""
    resolver = dns.resolver.Resolver(configure=not nameservers)
    if nameservers:
        resolver.nameservers = [_nameserver(one) for one in nameservers]

    def ask(name: str, kind: RecordType) -> Answers:
        try:
            answer = resolver.resolve(
                name, str(kind), lifetime=LOOKUP_SECONDS_MAX, raise_on_no_answer=False, search=False
            )
        except dns.resolver.NXDOMAIN:
            return ()
        except dns.exception.DNSException:
            return None
        return tuple(_value(kind, record) for record in answer.rrset or ())

    return ask


def dkim_public_key(key_file: Path | None) -> str:
    """Base64 of the key's public half (RFC 6376 section 3.6.1); "" without a file. Raises ValueError, OSError."""
    if key_file is None:
        return ""
    key = load_pem_private_key(key_file.read_bytes(), password=None)
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def _in_words(finding: RecordFinding) -> DnsFinding:
    record = finding.record
    enter = "Enter: " + "  ".join(zone_lines(record.wanted))
    match finding.verdict:
        case Verdict.OK:
            return DnsFinding(record.what, "ok", f"{record.wanted.name}: {' | '.join(finding.found)}")
        case Verdict.MISSING:
            return DnsFinding(record.what, "wrong", f"missing at {record.wanted.name}", enter)
        case Verdict.DIFFERENT:
            said = f"different at {record.wanted.name}: {' | '.join(finding.found)}: {finding.why}"
            return DnsFinding(record.what, "wrong", said, enter)
        case Verdict.UNKNOWN:
            return DnsFinding(
                record.what,
                "wrong",
                f"no nameserver answered for {record.wanted.name}",
                f"Set TINYFAT_NAMESERVERS to one that does. {enter}",
            )


def _exchanges(found: Sequence[str], ask: Ask) -> Iterator[DnsFinding]:
    """An MX that has no address takes no mail (RFC 5321 section 5.1)."""
    for value in found:
        host = plain(value.split()[-1])
        addresses = _addresses(host, ask)
        if addresses is None:
            yield DnsFinding("MX", "wrong", f"no nameserver answered for {host}", "Ask again later.")
        elif addresses:
            yield DnsFinding("MX", "ok", f"{host} is {', '.join(addresses)}")
        else:
            yield DnsFinding("MX", "wrong", f"{host} has no address", f"Enter: {host}. A <this host's address>")


def _policy_host(terms: MailTerms, ask: Ask) -> Iterator[DnsFinding]:
    """An MTA-STS record announces a policy that is read over HTTPS (RFC 8461 section 3); TinyFat serves none."""
    name = f"_mta-sts.{plain(terms.domain)}"
    if not any(value.lower().startswith("v=stsv1") for value in ask(name, RecordType.TXT) or ()):
        return
    host = f"mta-sts.{plain(terms.domain)}"
    addresses = _addresses(host, ask)
    if addresses:
        yield DnsFinding("MTA-STS", "note", f"{name} is there: its policy is yours to serve, at {host}")
    elif addresses is None:
        yield DnsFinding("MTA-STS", "note", f"{name} is there; no nameserver answered for {host}", "Ask again later.")
    else:
        yield DnsFinding(
            "MTA-STS", "wrong", f"{name} announces a policy, and {host} has no address", f"Remove {name}, or serve it."
        )


def _addresses(host: str, ask: Ask) -> Answers:
    """Of both kinds; None where nobody answered for either."""
    answers = [ask(host, kind) for kind in (RecordType.A, RecordType.AAAA)]
    if all(answer is None for answer in answers):
        return None
    return tuple(value for answer in answers for value in answer or ())


def _nameserver(text: str) -> dns.nameserver.Do53Nameserver:
    parts = urlsplit(f"//{text}" if text.startswith("[") or text.count(":") < 2 else f"//[{text}]")
    return dns.nameserver.Do53Nameserver(parts.hostname or "", parts.port or DNS_PORT)


def _value(kind: RecordType, record: object) -> str:
    if kind is RecordType.TXT:
        strings: tuple[bytes, ...] = getattr(record, "strings")  # noqa: B009 - dnspython's rdata types are made at run time
        return b"".join(strings).decode("utf-8", "surrogateescape")
    return canonical(kind, str(record))
