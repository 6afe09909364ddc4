"""Proving a sender: an SPF or DKIM pass for a domain that is the From header's own (RFC 7489 3.1)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.mail.addresses import domain_name, plain_address
from tinyfat.domain.mail.headers import read_headers
from tinyfat.domain.mail.message import sender_of
from tinyfat.drivers.mail.dkim_check import DkimResult, dkim_results
from tinyfat.drivers.mail.dmarc import DmarcPolicy, dmarc_policy, organisational_domain
from tinyfat.drivers.mail.dns_lookups import DnsResolver, Lookups, TemporaryDnsError
from tinyfat.drivers.mail.spf_check import spf_result
from tinyfat.ports.mail import Authentication, AuthenticationUnknown, Envelope

THREADS = 4
_QUOTED_LOCAL = re.compile(r'"(?:[^"\\\r\n]|\\.)*"')
_BARE_LOCAL = re.compile(r'[^\s@"<>(),:;\[\]\\]+')
CHECKS_WAITING_MAX = 100  # more at once are told to come back


@dataclass(frozen=True, slots=True)
class _Claim:
    """One mechanism's word for one domain."""

    mechanism: str  # "spf" or "dkim"
    domain: str
    result: str
    recipients: tuple[str, ...] | None = None  # the only ones it vouches to; None: to all


class DnsSenderAuthentication:
    """ports.mail.SenderAuthentication over SPF, DKIM and DMARC.

    nameservers: "ip" or "ip:port"; None asks the system's. timeout_seconds: for all of a mail's DNS together. now: Unix
    seconds.
    """

    def __init__(
        self, nameservers: tuple[str, ...] | None, timeout_seconds: float, now: Callable[[], float] = time.time
    ) -> None:
        self._now = now
        self._resolver = DnsResolver(nameservers, timeout_seconds)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sender-authentication")
        self._waiting = 0

    async def check(self, raw: bytes, envelope: Envelope, from_address: str) -> Authentication:
        """Raises AuthenticationUnknown where only a temporary DNS error stands between us and an answer."""
        if self._waiting >= CHECKS_WAITING_MAX:
            raise AuthenticationUnknown(Failure(FailureId.SENDERS_BUSY).text())
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self.checked, raw, envelope, from_address)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Wait for the checks under way (they are bounded), then end the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def checked(self, raw: bytes, envelope: Envelope, from_address: str) -> Authentication:
        """As `check`, and waits for the DNS meanwhile: for a thread or a process of its own."""
        block = read_headers(raw)
        sender, defects = sender_of(block.headers)
        if not sender.address or sender.address != from_address:
            return Authentication(False, f"dmarc=permerror ({', '.join(defects) or 'not the From header'})")
        domain = from_address.rpartition("@")[2]
        lookups = Lookups(self._resolver)
        # Of its own: a record that uses up its lookups, or half of the time, leaves the signatures theirs.
        spf = _spf_claim(envelope, domain, Lookups(self._resolver, self._resolver.timeout_seconds / 2))
        signatures = (
            []
            if _proves_exactly([spf], domain)
            else dkim_results(raw, block.body_start, lookups, lambda signer: _could_align(signer, domain), self._now())
        )
        claims = [spf, *(_Claim("dkim", one.domain, one.result, one.recipients) for one in signatures)]
        return _decide(claims, signatures, domain, lookups)


def _could_align(domain: str, from_domain: str) -> bool:
    return domain == from_domain or organisational_domain(domain) == organisational_domain(from_domain)


def _proves_exactly(claims: list[_Claim], from_domain: str) -> bool:
    """A pass for the very domain aligns under every policy, so none need be asked for."""
    return any(claim.result == "pass" and claim.domain == from_domain for claim in claims)


def _spf_claim(envelope: Envelope, from_domain: str, lookups: Lookups) -> _Claim:
    helo = domain_name(envelope.helo.rstrip(".")) or ""
    domain = _mail_from_domain(envelope.mail_from) if envelope.mail_from else helo
    if not domain or not _could_align(domain, from_domain):
        return _Claim("spf", domain, "none")  # whatever it says, it says it of somebody else
    # The domain alone counts. A local part that pyspf could stumble over is RFC 7208 4.3's.
    sender = plain_address(envelope.mail_from) or f"postmaster@{domain}" if envelope.mail_from else ""
    return _Claim("spf", domain, spf_result(envelope.client_ip, sender, helo or domain, lookups))


def _mail_from_domain(mail_from: str) -> str:
    """The domain of a MAIL FROM whose local part may be quoted, long, or outside ASCII (RFC 6531), or ""."""
    local, at, domain = mail_from.strip().rpartition("@")
    if not at or not (_QUOTED_LOCAL.fullmatch(local) or _BARE_LOCAL.fullmatch(local)):
        return ""
    return domain_name(domain.removesuffix(".")) or ""


def _decide(claims: list[_Claim], signatures: list[DkimResult], domain: str, lookups: Lookups) -> Authentication:
    words = _words(claims, signatures)
    if exact := [claim for claim in claims if claim.result == "pass" and claim.domain == domain]:
        return _passed(exact, words, domain)
    passed = [claim for claim in claims if claim.result == "pass"]
    unanswered = [claim for claim in claims if claim.result == "temperror"]
    if not passed and not unanswered:
        return Authentication(False, f"{words} dmarc=fail header.from={domain}")
    try:
        policy = dmarc_policy(domain, lookups)
    except TemporaryDnsError as error:
        raise AuthenticationUnknown(Failure(FailureId.POLICY_UNKNOWN, {"domain": domain}).text()) from error
    if aligned := [claim for claim in passed if _aligned(claim, domain, policy)]:
        return _passed(aligned, words, domain)
    if any(_aligned(claim, domain, policy) for claim in unanswered):
        raise AuthenticationUnknown(Failure(FailureId.SENDER_UNKNOWN, {"domain": domain}).text())
    return Authentication(False, f"{words} dmarc=fail header.from={domain}")


def _passed(claims: list[_Claim], words: str, domain: str) -> Authentication:
    detail = f"{words} dmarc=pass header.from={domain}"
    if any(claim.recipients is None for claim in claims):
        return Authentication(True, detail)
    return Authentication(True, detail, tuple(one for claim in claims for one in claim.recipients or ()))


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
