"""Proving a sender: an SPF or DKIM pass for a domain that is the From header's own (RFC 7489 3.1)."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tinyfat.domain.mail.addresses import domain_name, plain_address
from tinyfat.domain.mail.headers import read_headers
from tinyfat.domain.mail.message import sender_of
from tinyfat.drivers.mail.dkim_check import DkimResult, dkim_results
from tinyfat.drivers.mail.dmarc import DmarcPolicy, dmarc_policy, organisational_domain
from tinyfat.drivers.mail.dns_lookups import DnsResolver, Lookups, TemporaryDnsError
from tinyfat.drivers.mail.spf_check import spf_result
from tinyfat.ports.mail import Authentication, AuthenticationUnknown, Envelope

THREADS = 4
CHECKS_WAITING_MAX = 100  # more at once are told to come back


@dataclass(frozen=True, slots=True)
class _Claim:
    """One mechanism's word for one domain."""

    mechanism: str  # "spf" or "dkim"
    domain: str
    result: str


class DnsSenderAuthentication:
    """ports.mail.SenderAuthentication over SPF, DKIM and DMARC.

    nameservers: "ip" or "ip:port"; None asks the system's. timeout_seconds: for all of a mail's DNS together.
    """

    def __init__(self, nameservers: tuple[str, ...] | None, timeout_seconds: float) -> None:
        self._resolver = DnsResolver(nameservers, timeout_seconds)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sender-authentication")
        self._waiting = 0

    async def check(self, raw: bytes, envelope: Envelope, from_address: str) -> Authentication:
        """Raises AuthenticationUnknown where only a temporary DNS error stands between us and an answer."""
        if self._waiting >= CHECKS_WAITING_MAX:
            raise AuthenticationUnknown(f"{CHECKS_WAITING_MAX} senders are being checked already; try again soon.")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._check, raw, envelope, from_address)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Wait for the checks under way (they are bounded), then end the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _check(self, raw: bytes, envelope: Envelope, from_address: str) -> Authentication:
        block = read_headers(raw)
        sender, defects = sender_of(block.headers)
        if not sender.address or sender.address != from_address:
            return Authentication(False, f"dmarc=permerror ({', '.join(defects) or 'not the From header'})")
        domain = from_address.rpartition("@")[2]
        lookups = Lookups(self._resolver)
        spf = _spf_claim(envelope, domain, lookups)
        signatures = [] if _proves_exactly([spf], domain) else _signatures(raw, block.body_start, domain, lookups)
        claims = [spf, *(_Claim("dkim", one.domain, one.result) for one in signatures)]
        return _decide(claims, signatures, domain, lookups)


def _could_align(domain: str, from_domain: str) -> bool:
    return domain == from_domain or organisational_domain(domain) == organisational_domain(from_domain)


def _proves_exactly(claims: list[_Claim], from_domain: str) -> bool:
    """A pass for the very domain aligns under every policy, so none need be asked for."""
    return any(claim.result == "pass" and claim.domain == from_domain for claim in claims)


def _spf_claim(envelope: Envelope, from_domain: str, lookups: Lookups) -> _Claim:
    address = plain_address(envelope.mail_from) or ""
    helo = domain_name(envelope.helo.rstrip(".")) or ""
    domain = address.rpartition("@")[2] if envelope.mail_from else helo
    if not domain or not _could_align(domain, from_domain):
        return _Claim("spf", domain, "none")  # whatever it says, it says it of somebody else
    return _Claim("spf", domain, spf_result(envelope.client_ip, address, helo or domain, lookups))


def _signatures(raw: bytes, header_bytes: int, from_domain: str, lookups: Lookups) -> list[DkimResult]:
    return dkim_results(raw, header_bytes, lookups, lambda domain: _could_align(domain, from_domain))


def _decide(claims: list[_Claim], signatures: list[DkimResult], domain: str, lookups: Lookups) -> Authentication:
    words = _words(claims, signatures)
    if _proves_exactly(claims, domain):
        return Authentication(True, f"{words} dmarc=pass header.from={domain}")
    passed = [claim for claim in claims if claim.result == "pass"]
    unanswered = [claim for claim in claims if claim.result == "temperror"]
    if not passed and not unanswered:
        return Authentication(False, f"{words} dmarc=fail header.from={domain}")
    try:
        policy = dmarc_policy(domain, lookups)
    except TemporaryDnsError as error:
        raise AuthenticationUnknown(f"The DMARC policy of {domain} was not to be had: {error}") from error
    if any(_aligned(claim, domain, policy) for claim in passed):
        return Authentication(True, f"{words} dmarc=pass header.from={domain}")
    if any(_aligned(claim, domain, policy) for claim in unanswered):
        raise AuthenticationUnknown(f"The DNS of {domain} does not answer just now ({words}).")
    return Authentication(False, f"{words} dmarc=fail header.from={domain}")


def _aligned(claim: _Claim, from_domain: str, policy: DmarcPolicy) -> bool:
    if claim.domain == from_domain:
        return True
    strict = policy.strict_dkim if claim.mechanism == "dkim" else policy.strict_spf
    return not strict and _could_align(claim.domain, from_domain)


def _words(claims: list[_Claim], signatures: list[DkimResult]) -> str:
    """As in an Authentication-Results header (RFC 8601)."""
    spf = next(claim for claim in claims if claim.mechanism == "spf")
    words = [f"spf={spf.result}" + (f" smtp.mailfrom={spf.domain}" if spf.domain else "")]
    for one in signatures:
        reason = f" ({one.detail})" if one.detail else ""
        words.append(f"dkim={one.result}{reason}" + (f" header.d={one.domain}" if one.domain else ""))
    return " ".join(words)
