"""Mail leaves by SMTP to a smarthost, with aiosmtplib. One connection a message; the caller bounds how many at once."""

from __future__ import annotations

import ssl

import aiosmtplib

from tinyfat.drivers.mail.dkim_signing import DkimSigner
from tinyfat.ports.mail import Delivered, DeliveryDeferred, DeliveryRefused

STEP_SECONDS_MAX = 30.0  # for each command and its answer; all of them stay under the lease of a delivery


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
            async with smtp:
                if self._user:
                    await smtp.login(self._user, self._password)
                _, response = await smtp.sendmail(envelope_from, [recipient], signed)
        except aiosmtplib.SMTPRecipientsRefused as refused:
            first = refused.recipients[0]
            raise _by_code(first.code, f"{where}: {first.code} {first.message}") from refused
        except aiosmtplib.SMTPAuthenticationError as error:
            # The password is wrong or changed: an operator mends that, and then the mail should still be there.
            raise DeliveryDeferred(
                f"{where} did not accept the user and password of TINYFAT_SMARTHOST: {error.code}"
            ) from error
        except aiosmtplib.SMTPResponseException as error:
            raise _by_code(error.code, f"{where}: {error.code} {error.message}") from error
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise DeliveryDeferred(f"{where}: {error}") from error
        return Delivered(f"250 {response}")


class NoSmarthost:
    """Where no smarthost is set nothing leaves: mail waits in the ledger, where `tinyfat mail show` reads it."""

    async def send(self, envelope_from: str, recipient: str, raw: bytes) -> Delivered:
        raise DeliveryDeferred("no smarthost is set: set TINYFAT_SMARTHOST and start TinyFat again to send this mail")


def _by_code(code: int, text: str) -> DeliveryDeferred | DeliveryRefused:
    return DeliveryRefused(text) if 500 <= code < 600 else DeliveryDeferred(text)


def _context(tls: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if tls == "offered":
        # RFC 7435: unproved encryption is more than none, which is what this smarthost would get otherwise.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
