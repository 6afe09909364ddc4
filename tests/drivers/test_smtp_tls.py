"""A certificate is renewed under a running server: new sessions have the new one, and a broken one is never used."""

from __future__ import annotations

import asyncio
import shutil
import smtplib
import ssl
from pathlib import Path

import pytest

from tests.certificates import Certificate, certificate
from tests.machine_speed import patient
from tinyfat.drivers.mail.smtp_in import SmtpBounds, SmtpIn
from tinyfat.drivers.mail.smtp_tls import LOOK_SECONDS, TlsFiles


class Pair:
    """The files that the server reads, and what may be put there."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.made: list[Certificate] = []
        for number in range(2):
            place = folder / str(number)
            place.mkdir()
            self.made.append(certificate(place))
        self.files = Certificate(folder / "certificate.pem", folder / "key.pem")
        self.put(0)
        self.tls = TlsFiles(self.files.certificate, self.files.key, lambda: self.now)

    def put(self, number: int, key: int | None = None) -> None:
        """As certbot does: another file takes the place of the old one."""
        for source, target in (
            (self.made[number].certificate, self.files.certificate),
            (self.made[number if key is None else key].key, self.files.key),
        ):
            draft = target.with_suffix(".new")
            shutil.copy(source, draft)
            draft.replace(target)

    def later(self, seconds: float = LOOK_SECONDS) -> ssl.SSLContext:
        self.now += seconds
        return self.tls.context()

    def der(self, number: int) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.made[number].certificate.read_text())


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_the_files_are_looked_at_now_and_then(pair: Pair) -> None:
    first = pair.tls.context()
    pair.put(1)
    assert pair.later(LOOK_SECONDS / 2) is first
    renewed = pair.later()
    assert renewed is not first and pair.later() is renewed


def test_what_does_not_fit_is_said_once_and_never_used(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    first = pair.tls.context()
    pair.put(1, key=0)
    assert pair.later() is first and pair.later() is first
    assert len([one for one in caplog.records if "is not used" in one.message]) == 1
    pair.files.certificate.unlink()
    assert pair.later() is first
    pair.put(1)
    assert pair.later() is not first


async def test_a_new_session_has_the_new_one_and_an_old_one_goes_on(pair: Pair) -> None:
    server = SmtpIn(_NobodyWrites(), "127.0.0.1", 0, "tinyfat.localhost", SmtpBounds(1000), pair.tls)
    await server.start()
    try:
        old = await asyncio.to_thread(_dial, server.port)
        assert _shown(old) == pair.der(0)
        pair.put(1)
        pair.now += LOOK_SECONDS
        new = await asyncio.to_thread(_dial, server.port)
        assert _shown(new) == pair.der(1)
        assert [(await asyncio.to_thread(one.noop))[0] for one in (old, new)] == [250, 250]
        for one in (old, new):
            await asyncio.to_thread(one.quit)
    finally:
        await server.stop()


def _dial(port: int) -> smtplib.SMTP:
    smtp = smtplib.SMTP("127.0.0.1", port, timeout=patient(10))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    smtp.starttls(context=context)
    smtp.ehlo()
    return smtp


def _shown(smtp: smtplib.SMTP) -> bytes | None:
    assert isinstance(smtp.sock, ssl.SSLSocket)
    return smtp.sock.getpeercert(binary_form=True)


class _NobodyWrites:
    def room(self, size: int) -> None:
        raise AssertionError("nobody names a recipient here")

    async def recipient(self, address: str) -> None:
        raise AssertionError("nobody writes here")

    async def accept(self, *_: object) -> str:
        raise AssertionError("nobody writes here")
