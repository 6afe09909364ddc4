"""What strangers can make us keep is bounded, by agent and by sender; whose agent it is can always write to it."""

from __future__ import annotations

import asyncio

import pytest

from tests.running import OWNER, letter
from tests.store.mails import ELSEWHERE, Mails
from tinyfat.ports.mail import NeverRoom, NoRoom
from tinyfat.store.database import Database
from tinyfat.store.quotas import Quotas

FEW = Quotas(quarantine_bytes=1_000_000, quarantine_mails=5, sender_bytes=1_000_000, sender_mails=3)
SMALL = Quotas(quarantine_bytes=20_000, quarantine_mails=100, sender_bytes=12_000, sender_mails=100)
MUCH = "x" * 70 + "\n"
COUNT = "select count(*) from messages"
BODIES = "select count(*), coalesce(sum(octet_length(raw)), 0) from message_bodies"


async def test_a_mail_for_several_agents_has_one_body(database: Database) -> None:
    mails = Mails(database)
    for name in ("ada", "bob", "cleo"):
        await mails.agent(name)
    mail = letter(MUCH * 5000, message_id="<1@example.org>")
    await mails.take(mail, "ada", "bob", "cleo")
    assert await mails.rows(BODIES) == [(1, len(mail.as_bytes()))]
    for (row_id,) in await mails.rows("select id from messages"):
        assert (await mails.ledger.show(str(row_id)))[1] == mail.as_bytes()
    assert len(mails.started) == 3
    for turn_id in mails.started:
        assert (await mails.ledger.incoming_of(turn_id))[1] == mail.as_bytes()


async def test_a_copy_that_comes_again_for_one_more_agent_leaves_it_a_body(database: Database) -> None:
    mails = Mails(database)
    await mails.agent("ada")
    await mails.agent("bob")
    mail = letter("Hello", message_id="<1@example.org>")
    await mails.take(mail, "ada")
    await mails.take(mail, "ada", "bob")
    await mails.take(mail, "ada", "bob")
    assert await mails.rows(BODIES) == [(2, 2 * len(mail.as_bytes()))]
    for (row_id,) in await mails.rows("select id from messages"):
        assert (await mails.ledger.show(str(row_id)))[1] == mail.as_bytes()


async def test_one_sender_cannot_fill_a_quarantine_alone(database: Database) -> None:
    mails = Mails(database, FEW)
    await mails.agent("ada")
    for number in range(3):
        await mails.stranger(number, sender="eve@example.net")
    with pytest.raises(NoRoom, match="of this sender"):
        await mails.stranger(3, sender="eve@example.net")
    await mails.stranger(4, sender="zoe@example.net")
    assert await mails.one(COUNT) == 4


async def test_many_senders_cannot_fill_the_disk(database: Database) -> None:
    mails = Mails(database, FEW)
    await mails.agent("ada")
    await mails.agent("bob")
    for number in range(5):
        await mails.stranger(number)
    with pytest.raises(NoRoom, match="not known here"):
        await mails.stranger(5)
    await mails.stranger(6, "bob")  # another agent's is another
    assert await mails.one(COUNT) == 6


async def test_at_once_no_more_is_kept_than_one_after_the_other(database: Database) -> None:
    mails = Mails(database, FEW)
    await mails.agent("ada")
    ended = await asyncio.gather(*(mails.stranger(number) for number in range(12)), return_exceptions=True)
    assert sum(isinstance(one, NoRoom) for one in ended) == 7
    assert await mails.one(COUNT) == 5


@pytest.mark.parametrize("headers", [{"Auto-Submitted": "auto-generated"}, {"List-Id": "<x.example.net>"}])
async def test_automatic_mail_counts_too(database: Database, headers: dict[str, str]) -> None:
    mails = Mails(database, FEW)
    await mails.agent("ada")
    for number in range(5):
        mail = letter("News", sender=f"news{number}@example.net", message_id=f"<{number}@example.net>")
        for name, value in headers.items():
            mail[name] = value
        await mails.take(mail, client=ELSEWHERE, mail_from="")
    with pytest.raises(NoRoom):
        await mails.stranger(5)


async def test_bytes_are_counted_and_what_never_fits_is_refused_for_good(database: Database) -> None:
    mails = Mails(database, SMALL)
    await mails.agent("ada")
    with pytest.raises(NeverRoom):
        await mails.stranger(0, text=MUCH * 200)
    await mails.stranger(1, text=MUCH * 120, sender="eve@example.net")
    with pytest.raises(NoRoom) as refused:
        await mails.stranger(2, text=MUCH * 120, sender="eve@example.net")
    assert not isinstance(refused.value, NeverRoom)
    await mails.stranger(3, text=MUCH * 120)
    with pytest.raises(NoRoom, match="not known here"):
        await mails.stranger(4, text=MUCH * 120)


async def test_the_owner_writes_over_a_full_quarantine(database: Database) -> None:
    mails = Mails(database, SMALL)
    await mails.agent("ada")
    await mails.stranger(1, text=MUCH * 150)
    await mails.stranger(2, text=MUCH * 100)
    await mails.take(letter(MUCH * 1000, message_id="<1@example.org>"))
    assert len(mails.started) == 1


async def test_a_copy_needs_no_room(database: Database) -> None:
    mails = Mails(database, FEW)
    await mails.agent("ada")
    kept = [await mails.stranger(number) for number in range(5)]
    assert await mails.stranger(0) == kept[0]
    assert await mails.one(COUNT) == 5


async def test_the_owner_of_one_is_not_refused_for_anothers_full_quarantine(database: Database) -> None:
    mails = Mails(database, FEW)
    await mails.agent("ada")
    await mails.agent("bob", "bobs-owner@example.org")
    for number in range(5):
        await mails.stranger(number, "bob")
    await mails.take(letter("Hello", message_id="<1@example.org>"), "bob", "ada")
    assert len(mails.started) == 1
    assert await mails.one(f"{COUNT} where message_id = '<1@example.org>'") == 2


async def test_conversations_have_a_quota_of_their_own(database: Database) -> None:
    mails = Mails(database, Quotas(conversations_bytes=10_000))
    await mails.agent("ada")
    with pytest.raises(NeverRoom):
        await mails.take(letter(MUCH * 300, message_id="<1@example.org>"))
    await mails.take(letter(MUCH * 130, message_id="<2@example.org>"))
    await mails.take(letter(MUCH * 30, message_id="<3@example.org>"))
    await mails.ledger.quotas.look()
    with pytest.raises(NoRoom, match="mailbox is full"):
        await mails.take(letter("Hello", message_id="<4@example.org>"))
    await mails.stranger(1)  # a quarantine is another's room
    await mails.rows("update messages set body_gone_at = now() where message_id = '<2@example.org>'")
    await mails.ledger.quotas.look()
    await mails.take(letter("Hello", message_id="<4@example.org>"))


async def test_a_refused_mail_leaves_nothing(database: Database) -> None:
    mails = Mails(database, FEW)
    agent = await mails.agent("ada")
    for number in range(5):
        await mails.stranger(number)
    before = await mails.rows("select (select count(*) from threads), (select count(*) from thread_refs)")
    with pytest.raises(NoRoom):
        await mails.stranger(5)
    assert await mails.rows("select (select count(*) from threads), (select count(*) from thread_refs)") == before
    assert await mails.one(f"{COUNT} where agent_id = %s", agent.id) == 5
    assert (await mails.rows(BODIES))[0][0] == 5


async def test_an_owner_who_wrote_is_answered_from_the_shared_body(database: Database) -> None:
    mails = Mails(database)
    await mails.agent("ada")
    await mails.agent("bob")
    await mails.take(letter("Hello", sender=OWNER, message_id="<1@example.org>"), "ada", "bob")
    listed = await mails.rows("select distinct body_id from messages")
    assert len(listed) == 1 and listed[0][0] is not None
