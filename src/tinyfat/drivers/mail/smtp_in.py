"""Mail comes in by SMTP (RFC 5321), with aiosmtpd: SIZE, STARTTLS where there is a certificate, SMTPUTF8.

What the peer hears: 250 only when the mail is committed, 550 for an address nobody has, 552 over the size, 452 where a
quota is used up or a disk nearly full, 451 while the database or the sender's DNS is away (the peer keeps it and comes
again).
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from pathlib import Path
from typing import Any, cast

from aiosmtpd.smtp import SMTP, Session
from aiosmtpd.smtp import Envelope as Transaction

from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.mail import AuthenticationUnknown, DiskLow, Envelope, Intake, NeverRoom, NoRoom, UnknownRecipient

SESSIONS_MAX = 200
IDLE_SECONDS_MAX = 300.0  # RFC 5321 4.5.3.2.7
RECIPIENTS_MAX = 100  # RFC 5321 4.5.3.1.8: at least 100
# RFC 5321 4.5.3.1.6 lets a peer send 1000, and asks us to take more where we can: others do, and a 500 loses the mail.
LINE_BYTES_MAX = 64 * 1024
SIZE_DIGITS_MAX = 20  # RFC 1870 3
ACCEPT_SECONDS_MAX = 120.0  # DNS, reading and committing; then 451

# RFC 5321 4.1.2: a Path whose local part is a Dot-string, as nearly every one is; parameters may follow.
_PLAIN_PATH = re.compile(r"<([A-Za-z0-9_+=-]+(?:\.[A-Za-z0-9_+=-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)>(?: +|$)")

log = logging.getLogger(__name__)


class SmtpIn:
    def __init__(
        self, intake: Intake, host: str, port: int, name: str, size_max: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self._intake = intake
        self._host, self._port, self._name = host, port, name
        self._size_max = size_max
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._sessions: set[_Smtp] = set()

    @property
    def port(self) -> int:
        """The real one, where 0 was asked for."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Raises OSError where the address is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._session, self._host, self._port)

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for session in list(self._sessions):
            if session.transport is not None:
                session.transport.close()
        await self._server.wait_closed()

    def _session(self) -> SMTP:
        return _Smtp(
            _Handler(self._intake),
            sessions=self._sessions,
            data_size_limit=self._size_max,
            enable_SMTPUTF8=True,
            hostname=self._name,
            ident="TinyFat",
            tls_context=self._tls,
            timeout=IDLE_SECONDS_MAX,
            auth_exclude_mechanism=["LOGIN", "PLAIN"],  # nobody logs in here: a sender is proved by DNS or its network
        )


class _Smtp(SMTP):
    """One connection, counted: beyond SESSIONS_MAX a peer is asked to come later."""

    line_length_limit = LINE_BYTES_MAX

    def __init__(self, handler: object, *, sessions: set[_Smtp], **arguments: Any) -> None:
        super().__init__(handler, **arguments)
        self._open_sessions = sessions

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Called once more after STARTTLS: that is no new session.
        if self not in self._open_sessions and len(self._open_sessions) >= SESSIONS_MAX:
            stream = cast(asyncio.Transport, transport)  # uvloop's is one by its methods, not by its class
            stream.write(b"421 4.3.2 Too many connections; come again in a minute\r\n")
            stream.close()
        self._open_sessions.add(self)
        super().connection_made(transport)

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """(address, what follows it). The parser takes a fifth of the time in which a mail is accepted: it is left for
        the addresses that need it, and the tests hold both to the same answer."""
        if plain := _PLAIN_PATH.match(arg):
            return plain[1], arg[plain.end() :]
        try:
            address, rest = super()._getaddr(arg)
        except Exception:  # the standard library's, of several kinds: <a@[> is enough
            return None, None  # aiosmtpd's word for a syntax error
        return address, rest

    def connection_lost(self, error: Exception | None) -> None:
        self._open_sessions.discard(self)
        super().connection_lost(error)


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
        except NoRoom as full:
            return _no_room(full)
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


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context
