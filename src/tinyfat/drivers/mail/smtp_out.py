"""Mail leaves by SMTP to a smarthost, with aiosmtplib. One connection a message; the caller bounds how many at once."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiosmtplib

from tinyfat.drivers.mail.dkim_signing import DkimSigner
from tinyfat.ports.mail import Delivered, DeliveryDeferred, DeliveryRefused

# All of these together stay under the lease of a delivery.
STEP_SECONDS_MAX = 30.0  # for each command and its answer
# RFC 5321 4.5.3.2.6: ten minutes for the answer to the mail itself. A smarthost that looks for spam takes its time, and
# whoever does not wait for its 250 sends the mail a second time.
DATA_SECONDS_MAX = 600.0
QUIT_SECONDS_MAX = 5.0


class SmtpOut:
    """`tls`: "implicit" (the connection begins with TLS), "required" (STARTTLS), "offered" (where offered), "none"."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: str,
        user: str,
        password: str,
        own_name: str,
        signer: DkimSigner | None = None,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._user, self._password = user, password
        self._own_name = own_name
        self._signer = signer
        self._context = tls_context or _context(tls)

    async def send(self, envelope_from: str, recipient: str, raw: bytes) -> Delivered:
        signed = await self._signer.signed(raw) if self._signer else raw
        async with self._session() as smtp:
            return Delivered(f"250 {await self._hand_over(smtp, envelope_from, recipient, signed)}")

    async def trial(self) -> None:
        async with self._session() as smtp:
            await self._begin(smtp)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiosmtplib.SMTP]:
        """Not connected yet. What fails within is a DeliveryError that names the smarthost."""
        where = f"{self._host}:{self._port}"
        smtp = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            local_hostname=self._own_name,
            timeout=STEP_SECONDS_MAX,
            use_tls=self._tls == "implicit",
            start_tls={"required": True, "offered": None}.get(self._tls, False),
            tls_context=self._context,
        )
        try:
            yield smtp
        except aiosmtplib.SMTPAuthenticationError as error:
            # The password is wrong or changed: an operator mends that, and then the mail should still be there.
            raise DeliveryDeferred(
                f"{where} did not accept the user and password of TINYFAT_SMARTHOST: {error.code}"
            ) from error
        except aiosmtplib.SMTPResponseException as error:
            raise _by_code(error.code, f"{where}: {error.code} {error.message}") from error
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise DeliveryDeferred(f"{where}: {error}") from error
        finally:
            await _leave(smtp)

    async def _begin(self, smtp: aiosmtplib.SMTP) -> None:
        await smtp.connect()
        if self._user:
            await smtp.login(self._user, self._password)

    async def _hand_over(self, smtp: aiosmtplib.SMTP, envelope_from: str, recipient: str, raw: bytes) -> str:
        """What the smarthost said with its 250: from then on the mail is its own, however the session ends."""
        await self._begin(smtp)
        try:
            await smtp.ehlo()
        except aiosmtplib.SMTPHeloError:
            await smtp.helo()
        options = [f"size={len(raw)}"] if smtp.supports_extension("size") else []
        await smtp.mail(envelope_from, options=options)
        await smtp.rcpt(recipient)
        return (await smtp.data(raw, timeout=DATA_SECONDS_MAX)).message


async def _leave(smtp: aiosmtplib.SMTP) -> None:
    with contextlib.suppress(aiosmtplib.SMTPException, OSError):
        if smtp.is_connected:
            await smtp.quit(timeout=QUIT_SECONDS_MAX)
    smtp.close()


class NoSmarthost:
    """Where no smarthost is set nothing leaves: mail waits in the ledger, where `tinyfat mail show` reads it."""

    async def send(self, envelope_from: str, recipient: str, raw: bytes) -> Delivered:
        raise DeliveryDeferred("no smarthost is set: set TINYFAT_SMARTHOST and start TinyFat again to send this mail")

    async def trial(self) -> None:
        raise DeliveryDeferred("no smarthost is set")


def _by_code(code: int, text: str) -> DeliveryDeferred | DeliveryRefused:
    return DeliveryRefused(text) if 500 <= code < 600 else DeliveryDeferred(text)


def _context(tls: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if tls == "offered":
        # RFC 7435: unproved encryption is more than none, which is what this smarthost would get otherwise.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
