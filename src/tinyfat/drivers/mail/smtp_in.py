"""Mail comes in by SMTP (RFC 5321), with aiosmtpd: SIZE, STARTTLS where there is a certificate, SMTPUTF8.

What the peer hears: 250 only when the mail is committed, 550 for an address nobody has, 450 for an agent that could not
be made, 552 over the size, 452 where a quota is used up or a disk nearly full, 451 while the database or the sender's
DNS is away (the peer keeps it and comes again).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiosmtpd.smtp import SMTP, Session
from aiosmtpd.smtp import Envelope as Transaction

from tinyfat.drivers.mail.smtp_session import SmtpReading, SmtpSession
from tinyfat.drivers.mail.smtp_tls import TlsFiles
from tinyfat.engine.connections import Connections, Door, affordable
from tinyfat.engine.reading import Reading
from tinyfat.listen_address import bound_at
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.mail import (
    AuthenticationUnknown,
    DiskLow,
    Envelope,
    Intake,
    MailBusy,
    MailUnreadable,
    NeverRoom,
    NoRoom,
    RecipientAway,
    UnknownRecipient,
)

SESSIONS_MAX = 500  # this machine itself, and the networks whose mail we trust, have half of them
SESSIONS_OF_PEER_MAX = 25
TOO_MANY = b"421 4.3.2 Too many connections; come again in a minute\r\n"
RECIPIENTS_MAX = 100  # RFC 5321 4.5.3.1.8: at least 100
SIZE_DIGITS_MAX = 20  # RFC 1870 3
ACCEPT_SECONDS_MAX = 120.0  # DNS, reading and committing; then 451

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SmtpBounds:
    """What one mail and all sessions together may take."""

    size_max: int  # bytes of one mail
    reading: Reading = field(default_factory=Reading)
    trusted: Sequence[Network] = ()  # may have many sessions: smarthosts of our own


class SmtpIn:
    def __init__(
        self, intake: Intake, host: str, port: int, name: str, bounds: SmtpBounds, tls: TlsFiles | None = None
    ) -> None:
        self._intake = intake
        self._host, self._port, self._name = host, port, name
        self._bounds = bounds
        self._reading = SmtpReading(bounds.reading, bounds.size_max)
        self._tls = tls
        self._door: Door | None = None
        self._sessions: set[SmtpSession] = set()

    @property
    def port(self) -> int:
        """The real one, where 0 was asked for."""
        assert self._door is not None
        return self._door.port

    async def start(self) -> None:
        """Raises OSError where the address is taken."""
        places = Connections(affordable(SESSIONS_MAX), SESSIONS_OF_PEER_MAX, self._bounds.trusted)
        door = Door("smtp", self._session, places, TOO_MANY)
        listeners = await bound_at(self._host, self._port)
        for listener in listeners:
            door.listen(listener)
        self._door = door

    async def stop(self) -> None:
        if self._door is None:
            return
        await self._door.close()
        for session in list(self._sessions):
            if session.transport is not None:
                session.transport.close()

    def _session(self) -> SmtpSession:
        return SmtpSession(
            _Handler(self._intake),
            sessions=self._sessions,
            reading=self._reading,
            data_size_limit=self._bounds.size_max,
            enable_SMTPUTF8=True,
            hostname=self._name,
            ident="TinyFat",
            tls_context=self._tls.context() if self._tls else None,
            auth_exclude_mechanism=["LOGIN", "PLAIN"],  # nobody logs in here: a sender is proved by DNS or its network
        )


class _Handler:
    """aiosmtpd's hooks. Whatever goes wrong in one of them must end as an answer, never as an accepted mail."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def handle_RCPT(
        self, server: SMTP, session: Session, transaction: Transaction, address: str, options: list[str]
    ) -> str:
        if len(transaction.rcpt_tos) >= RECIPIENTS_MAX:
            return "452 4.5.3 Too many recipients"
        try:
            self._intake.room(_announced(transaction))
            await self._intake.recipient(address)
        except UnknownRecipient as unknown:
            return f"550 5.1.1 {_one_line(unknown)}"
        except RecipientAway as away:
            return f"450 4.2.1 {_one_line(away)}"
        except NoRoom as full:
            return _no_room(full)
        except StoreUnavailable:
            return "451 4.3.0 The ledger is away; please come again"
        except Exception:
            log.exception("RCPT failed")
            return "451 4.3.0 Something went wrong here; please come again"
        transaction.rcpt_tos.append(address)
        transaction.rcpt_options.extend(options)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, transaction: Transaction) -> str:
        raw = transaction.content
        assert isinstance(raw, bytes)
        peer = session.peer[0] if isinstance(session.peer, tuple) else ""
        # aiosmtpd calls the null return path "<>" (RFC 5321 4.5.5).
        mail_from = "" if transaction.mail_from == "<>" else transaction.mail_from or ""
        envelope = Envelope(peer, session.host_name or "", mail_from)
        try:
            async with asyncio.timeout(ACCEPT_SECONDS_MAX):
                kept = await self._intake.accept(envelope, transaction.rcpt_tos, raw)
        except UnknownRecipient as unknown:
            return f"550 5.1.1 {_one_line(unknown)}"
        except RecipientAway as away:
            return f"450 4.2.1 {_one_line(away)}"
        except NoRoom as full:
            return _no_room(full)
        except MailUnreadable as error:
            return f"554 5.6.0 {_one_line(error)}"
        except MailBusy as error:
            return f"451 4.3.2 {_one_line(error)}"
        except AuthenticationUnknown as error:
            return f"451 4.7.0 {_one_line(error)}"
        except (StoreUnavailable, TimeoutError):
            return "451 4.3.0 The ledger is away; please come again"
        except Exception:
            log.exception("a mail from %s could not be taken in", peer)
            return "451 4.3.0 Something went wrong here; please come again"
        return f"250 2.0.0 Ok: kept as {kept}"


def _no_room(full: NoRoom) -> str:
    """RFC 5321 4.2.3: 552 where it can never be taken, 452 where it may be later. RFC 3463 3.3, 3.4: whose fault."""
    if isinstance(full, NeverRoom):
        return f"552 5.2.3 {_one_line(full)}"
    return f"452 {'4.3.1' if isinstance(full, DiskLow) else '4.2.2'} {_one_line(full)}"


def _announced(transaction: Transaction) -> int:
    """The size that MAIL FROM named (RFC 1870), in bytes; 0 where it named none."""
    for option in transaction.mail_options:
        name, _, value = option.partition("=")
        if name.upper() == "SIZE" and value.isascii() and value.isdigit():
            return int(value[:SIZE_DIGITS_MAX])
    return 0


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text.encode("ascii", "replace").decode("ascii")[:400]
