"""What we ask of the world of mail: to prove a sender, and to carry a message away.

MailError
├── AuthenticationUnknown  DNS did not answer: the peer should try again (451)
├── MailBusy               too many large mails at once: try again later (451)
├── MailUnreadable         its reading takes more time or memory than a mail may: never (554)
├── UnknownRecipient       nobody has this address here (550)
├── RecipientAway          somebody has it, and cannot be written to yet: try again later (450)
├── NoRoom                 a quota is used up, or a disk is nearly full: try again later (452)
│   ├── NeverRoom          it is larger than its whole quota (552)
│   └── DiskLow            of the two, the disk
└── DeliveryError
    ├── DeliveryDeferred   4xx, or no answer: try again later
    └── DeliveryRefused    5xx: never
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tinyfat.domain.mail.message import Mail


class MailError(Exception):
    """Mail could not be handled."""


class AuthenticationUnknown(MailError):
    """The sender's domain could not be looked up just now."""


class MailBusy(MailError):
    """Mails like this one are being read already; it may come again."""


class MailUnreadable(MailError):
    """To read it would take more time or memory than a mail may."""


class UnknownRecipient(MailError):
    """No agent has this address."""


class RecipientAway(MailError):
    """The agent of this address could not be made, or not yet."""


class NoRoom(MailError):
    """There is no room for this mail now. The text is for its sender's mail system."""


class NeverRoom(NoRoom):
    """It is larger than all the room there could be."""


class DiskLow(NoRoom):
    """A disk that mail is kept on is nearly full."""


class DeliveryError(MailError):
    """The smarthost did not take the message. The text is its own answer, for people."""


class DeliveryDeferred(DeliveryError):
    """Not now: 4xx, no connection, a timeout."""


class DeliveryRefused(DeliveryError):
    """Never: 5xx."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the SMTP peer said (RFC 5321), not what the header says (RFC 5322)."""

    client_ip: str  # "" where it is not known
    helo: str
    mail_from: str  # "" is the null return path


@dataclass(frozen=True, slots=True)
class Authentication:
    """RFC 7489: does an aligned SPF or DKIM result vouch for the From header's domain?"""

    passed: bool
    detail: str  # as in an Authentication-Results header, e.g. "spf=pass dkim=none dmarc=pass"
    recipients: tuple[str, ...] | None = None  # a DKIM signature alone vouches only to whom its To and Cc name


class Intake(Protocol):
    """Where a driver hands over what its peer brings. When `accept` returns, the mail is on disk and ours."""

    def room(self, size: int) -> None:
        """`size`: bytes, as the peer announces them (RFC 1870); 0 where it does not. Raises NoRoom where nobody's mail
        of that size is taken now. Touches no disk."""

    async def recipient(self, address: str) -> None:
        """Raises UnknownRecipient, RecipientAway, or StoreUnavailable (ports/ledger)."""

    async def accept(self, envelope: Envelope, recipients: Sequence[str], raw: bytes) -> str:
        """One word that names what was kept, for the peer's log. Raises as `recipient` and `room`, and
        AuthenticationUnknown."""


class OperatorMailbox(Protocol):
    """Mail to postmaster@, abuse@ and their like."""

    async def keep(self, mailbox: str, recipient: str, envelope: Envelope, mail: Mail, raw: bytes) -> str:
        """On disk when it returns, with the row's id. Raises NoRoom."""


class SenderAuthentication(Protocol):
    async def check(self, raw: bytes, envelope: Envelope, from_address: str) -> Authentication:
        """Raises AuthenticationUnknown where only a temporary DNS error stands between us and an answer."""


@dataclass(frozen=True, slots=True)
class Delivered:
    response: str  # the smarthost's last line, e.g. "250 2.0.0 Ok: queued as 4XyZ"


class MailOut(Protocol):
    async def send(self, envelope_from: str, recipient: str, raw: bytes) -> Delivered:
        """Raises DeliveryDeferred or DeliveryRefused. May be called again with the same message."""

    async def trial(self) -> None:
        """As far as a mail would come without being sent: connected, under TLS, logged in. Raises as `send`."""
