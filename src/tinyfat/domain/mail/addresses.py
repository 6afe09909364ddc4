"""Addresses of ours and of senders: `name+tag@domain`, allow-list patterns, and the address a bounce comes back to."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

LOCAL_PART_CHARS_MAX = 64  # RFC 5321 4.5.3.1.1
DOMAIN_CHARS_MAX = 253
# A recipient of ours may be a bounce address, whose id can make it longer than RFC 5321 promises everyone takes.
RECIPIENT_CHARS_MAX = 320
BOUNCE_TAG = "bounce"
BOUNCE_MAC_CHARS = 8

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_BOUNCE = re.compile(rf"{BOUNCE_TAG}\.([a-z2-7]{{1,64}})\.([0-9a-f]{{{BOUNCE_MAC_CHARS}}})")


class AddressRefused(ValueError):
    """This is not an address TinyFat can use."""


class SenderPatternRefused(ValueError):
    """This cannot be on an allow-list."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """`name+tag@domain`, case folded. The tag is "" where there is none."""

    name: str
    tag: str
    domain: str


def domain_name(text: str) -> str | None:
    """The domain in lower case and ASCII (IDNA), or None where it is none."""
    if len(text) > DOMAIN_CHARS_MAX:
        return None
    folded = text.lower()
    if not folded.isascii():
        try:
            folded = folded.encode("idna").decode("ascii").lower()
        except (UnicodeError, ValueError):
            return None
    return folded if len(folded) <= DOMAIN_CHARS_MAX and _DOMAIN.fullmatch(folded) else None


def plain_address(text: str) -> str | None:
    """`local@domain` in lower case (RFC 5321 4.1.2), or None.

    A quoted local part is unquoted where the quotes are needless and refused where they are not; so are address
    literals, source routes and local parts outside ASCII: nothing we send could safely name them.
    """
    local, at, domain = text.strip().rpartition("@")
    quoted = _QUOTED.fullmatch(local)
    if quoted:
        local = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    folded = domain_name(domain)
    if not at or folded is None or len(local) > LOCAL_PART_CHARS_MAX or not _DOT_ATOM.fullmatch(local):
        return None
    return f"{local.lower()}@{folded}"


def parse_recipient(address: str) -> Recipient:
    """Read the address of an RCPT TO. Raises AddressRefused."""
    local, at, domain = address.strip().strip("<>").rpartition("@")
    quoted = _QUOTED.fullmatch(local)
    if quoted:
        local = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    folded = domain_name(domain.rstrip("."))
    if not at or folded is None or len(address) > RECIPIENT_CHARS_MAX or not _DOT_ATOM.fullmatch(local):
        raise AddressRefused(f"{address[:RECIPIENT_CHARS_MAX]!r} is not an address such as ada@example.org.")
    name, _, tag = local.lower().partition("+")
    if not name:
        raise AddressRefused(f"{address!r} names no agent before the '+'.")
    return Recipient(name, tag, folded)


# RFC 5321 4.5.1 and RFC 2142: whoever has a domain reads these. No agent can have such a name.
OPERATOR_MAILBOXES = frozenset(("postmaster", "abuse", "hostmaster", "webmaster", "security", "noc"))


def operator_mailbox(address: str, domain: str) -> str:
    """Which of the operator's mailboxes an address of `domain` names; "" where it names none. `postmaster` needs no
    domain."""
    local, at, of = address.strip().strip("<>").rpartition("@")
    if not at:
        return "postmaster" if of.lower() == "postmaster" else ""
    name = local.strip('"').lower().partition("+")[0]
    return name if name in OPERATOR_MAILBOXES and domain_name(of.rstrip(".")) == domain else ""


def sender_pattern(text: str) -> str:
    """An allow-list entry in its one normal form: `a@b.c`, or `@b.c` for all of a domain.

    Raises SenderPatternRefused, which says what would be right.
    """
    pattern = text.strip()
    if pattern.startswith("@"):
        domain = domain_name(pattern[1:])
        normal = f"@{domain}" if domain else None
    else:
        normal = None if "*" in pattern else plain_address(pattern)  # it would look as if it matched more
    if normal is None:
        raise SenderPatternRefused(
            f"{text!r} cannot be allowed: give one address such as maria@example.org, or a whole domain such as "
            "@example.org (its subdomains are not included)."
        )
    return normal


def owner_address(text: str, own_domain: str) -> str:
    """An owner's address in its normal form. Raises SenderPatternRefused.

    One under `own_domain`, where agents have theirs, is refused: it is an agent, or the next one to get that name.
    """
    address = sender_pattern(text)
    domain, own = address.rpartition("@")[2], own_domain.lower()
    if address.startswith("@"):
        raise SenderPatternRefused(f"{text!r} is a whole domain; an owner is one address, such as you@example.org.")
    if domain == own or domain.endswith(f".{own}"):
        raise SenderPatternRefused(f"{text!r} is under {own}, where agents live: give an owner's address elsewhere.")
    return address


def sender_allowed(patterns: Iterable[str], address: str) -> bool:
    """Is this (normal, lower-case) address on the list? "" never is."""
    if not address:
        return False
    domain = address.rpartition("@")[2]
    return any(pattern in (address, f"@{domain}") for pattern in patterns)


def bounce_address(name: str, domain: str, message_id_hex: str, secret: bytes) -> str:
    """The envelope sender of a reply: what comes back to it is a bounce of that message and of no other.

    `message_id_hex` is our row's id in hexadecimal (hyphens are dropped). It travels in base32, so that with a UUID and
    an agent's name of up to 21 characters the local part keeps to RFC 5321's 64.
    """
    packed = base64.b32encode(bytes.fromhex(message_id_hex.replace("-", ""))).decode("ascii").rstrip("=").lower()
    return f"{name}+{BOUNCE_TAG}.{packed}.{_bounce_mac(name, packed, secret)}@{domain}"


def bounce_of(local_part: str, secret: bytes) -> str | None:
    """The id (hexadecimal, no hyphens) of our message this bounce address was made for; None where it is not ours."""
    name, _, tag = local_part.lower().partition("+")
    match = _BOUNCE.fullmatch(tag)
    if not match or not hmac.compare_digest(match[2], _bounce_mac(name, match[1], secret)):
        return None
    try:
        return base64.b32decode(match[1].upper() + "=" * (-len(match[1]) % 8)).hex()
    except binascii.Error:
        return None


def is_bounce_form(local_part: str) -> bool:
    """Has it the form of a bounce address, whoever made it? Nobody is told one to write to."""
    return bool(_BOUNCE.fullmatch(local_part.lower().partition("+")[2]))


def _bounce_mac(name: str, packed: str, secret: bytes) -> str:
    digest = hmac.new(secret, f"bounce:{name}:{packed}".encode("utf-8", "replace"), "sha256")
    return digest.hexdigest()[:BOUNCE_MAC_CHARS]
