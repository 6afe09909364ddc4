"""Mails of one moment go in one commit; what cannot be written harms itself alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.running import letter
from tests.store.mails import Mails
from tinyfat.domain.mail.states import MessageState
from tinyfat.ports.ledger import Accepted, StoreUnavailable
from tinyfat.ports.mail import NoRoom
from tinyfat.store.database import Database
from tinyfat.store.mail_batches import BATCH_BYTES_MAX, BATCH_MAILS_MAX, LANES, MailBatches, Outcome
from tinyfat.store.quotas import Quotas


class _Mail:
    def __init__(self, name: str, size: int = 10) -> None:
        self.name = name
        self.raw = b"x" * size


class _Ledger:
    """Each commit waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = asyncio.Event()
        self.poisoned = ""
        self.full = ""
        self.away = False
        self.open = MailBatches(self.commit)  # type: ignore[arg-type]

    async def commit(self, mails: Sequence[Sequence[_Mail]]) -> list[Outcome]:
        names = [mail[0].name for mail in mails]
        self.batches.append(names)
        await self.go.wait()
        if self.away:
            raise StoreUnavailable("away")
        if self.poisoned in names:
            raise ValueError("it cannot be written")
        return [
            NoRoom("full") if name == self.full else [Accepted(name, "", MessageState.QUEUED, False)] for name in names
        ]

    async def all(self, mails: Sequence[_Mail]) -> list[Any]:
        asked = [asyncio.create_task(self.open.accept([mail])) for mail in mails]  # type: ignore[list-item]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.go.set()
        return await asyncio.gather(*asked, return_exceptions=True)


@pytest.fixture
def ledger() -> _Ledger:
    return _Ledger()


async def test_who_comes_while_others_are_written_goes_together(ledger: _Ledger) -> None:
    ended = await ledger.all([_Mail(str(number)) for number in range(60)])
    assert [one[0].message_id for one in ended] == [str(number) for number in range(60)]
    assert [len(batch) for batch in ledger.batches] == [1] * LANES + [BATCH_MAILS_MAX, 60 - LANES - BATCH_MAILS_MAX]
    assert [name for batch in ledger.batches for name in batch] == [str(number) for number in range(60)], "in order"
    await ledger.all([_Mail("later")])
    assert ledger.batches[-1] == ["later"]


async def test_large_mails_do_not_make_small_ones_wait(ledger: _Ledger) -> None:
    sizes = [10] * LANES + [10, BATCH_BYTES_MAX, 10, 10]
    await ledger.all([_Mail(str(number), size) for number, size in enumerate(sizes)])
    assert ledger.batches[LANES:] == [[str(LANES)], [str(LANES + 1)], [str(LANES + 2), str(LANES + 3)]]


async def test_one_that_cannot_be_written_harms_itself_alone(ledger: _Ledger) -> None:
    ledger.poisoned, ledger.full = "6", "7"
    ended = await ledger.all([_Mail(str(number)) for number in range(10)])
    assert isinstance(ended[6], ValueError) and isinstance(ended[7], NoRoom)
    assert all(isinstance(one, list) for number, one in enumerate(ended) if number not in (6, 7))


async def test_an_absent_database_is_told_to_all_and_asked_once_a_batch(ledger: _Ledger) -> None:
    ledger.away = True
    ended = await ledger.all([_Mail(str(number)) for number in range(10)])
    assert all(isinstance(one, StoreUnavailable) for one in ended)
    assert len(ledger.batches) == LANES + 1


async def test_who_gives_up_stops_nobody(ledger: _Ledger) -> None:
    asked = [asyncio.create_task(ledger.open.accept([_Mail(str(number))])) for number in range(10)]  # type: ignore[list-item]
    await asyncio.sleep(0)
    for number in (0, LANES, LANES + 1):
        asked[number].cancel()
    ledger.go.set()
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(one, list) for one in ended) == 7
    assert await ledger.all([_Mail("later")])


async def test_copies_and_threads_of_one_moment_are_one(database: Database) -> None:
    mails = Mails(database)
    for name in ("ada", "bob", "cleo"):
        await mails.agent(name)
    sent = [
        mails.take(letter("Hello", message_id=f"<{number % 20}@example.org>", in_reply_to="<0@example.org>"), name)
        for number in range(60)
        for name in ("ada", "bob", "cleo")
    ]
    kept = await asyncio.gather(*sent)
    assert len(set(kept)) == 60 == await mails.one("select count(*) from messages")
    assert await mails.one("select count(*) from threads") == 3
    assert len(mails.started) == 3, "the first of each conversation starts, and no other"
    assert await mails.one("select count(*) from message_bodies") == 60


async def test_strangers_and_owners_of_one_moment_are_judged_apart(database: Database) -> None:
    mails = Mails(database, Quotas(quarantine_mails=5))
    await mails.agent("ada")
    strangers = [mails.stranger(number) for number in range(30)]
    owners = [mails.take(letter("Hello", message_id=f"<{number}@example.org>")) for number in range(30)]
    mixed = [one for pair in zip(strangers, owners, strict=True) for one in pair]
    ended = await asyncio.gather(*mixed, return_exceptions=True)
    assert sum(isinstance(one, NoRoom) for one in ended) == 25
    assert sum(isinstance(one, str) for one in ended) == 35
    assert await mails.one("select count(*) from turns") == 30
