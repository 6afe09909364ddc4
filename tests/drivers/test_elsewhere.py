"""A large mail's sender is proved in another process, by the same rules."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tinyfat.drivers.mail import elsewhere
from tinyfat.drivers.mail.authentication import DnsSenderAuthentication
from tinyfat.drivers.mail.elsewhere import ElsewhereAuthentication
from tinyfat.engine.workers import Workers
from tinyfat.ports.mail import AuthenticationUnknown, Envelope

NOBODY = ("127.0.0.1:9",)  # no nameserver is there
ENVELOPE = Envelope("192.0.2.7", "peer.example", "x@elsewhere.example")
HEAD = b"From: a@b.example\r\nTo: c@d.example\r\n\r\n"
SMALL, LARGE = HEAD + b"hello\r\n", HEAD + b"word word\r\n" * 10_000


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers()
    yield workers
    await workers.close()


async def test_large_ones_are_proved_elsewhere_with_the_same_result(workers: Workers) -> None:
    near = DnsSenderAuthentication(NOBODY, 0.2)
    both = ElsewhereAuthentication(near, workers, NOBODY, 0.2)
    small = await both.check(SMALL, ENVELOPE, "a@b.example")
    assert workers.processes == 0
    large = await both.check(LARGE, ENVELOPE, "a@b.example")
    assert workers.processes == 1
    assert small == large and not large.passed
    both.close()


async def test_what_cannot_be_verified_proves_nothing(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    both = ElsewhereAuthentication(DnsSenderAuthentication(NOBODY, 0.2), workers, NOBODY, 0.2)
    monkeypatch.setattr(elsewhere, "PROVE_SECONDS_MAX", 0.001)
    proof = await both.check(LARGE, ENVELOPE, "a@b.example")
    assert not proof.passed and "permerror" in proof.detail
    both.close()


async def test_too_many_at_once_come_again() -> None:
    workers = Workers(size_max=10)
    both = ElsewhereAuthentication(DnsSenderAuthentication(NOBODY, 0.2), workers, NOBODY, 0.2)
    with pytest.raises(AuthenticationUnknown):
        await both.check(LARGE, ENVELOPE, "a@b.example")
    both.close()
