"""What takes room in the database, and a shared body once."""

from __future__ import annotations

from tests.running import letter
from tests.store.mails import Mails
from tinyfat.store.database import Database
from tinyfat.store.room_taken import database_taken, machines_agents


async def test_bodies_by_what_they_are(database: Database) -> None:
    mails = Mails(database)
    await mails.agent("ada")
    await mails.agent("bob")
    shared, alone = letter("x" * 5000, message_id="<1@example.org>"), letter("y" * 100, message_id="<2@example.org>")
    await mails.take(shared, "ada", "bob")
    await mails.take(alone, "ada")
    await mails.stranger(1)
    await mails.stranger(2, "ada", "bob")
    taken = {one.kind: one for one in await database_taken(database)}
    assert taken["bodies: mail"].bytes == len(shared.as_bytes()) + len(alone.as_bytes())
    assert (taken["bodies: mail"].count, taken["bodies: quarantine"].count) == (2, 2)
    assert taken["bodies: mail"].inside == "table message_bodies"
    assert taken["table message_bodies"].bytes >= taken["bodies: mail"].bytes + taken["bodies: quarantine"].bytes
    assert taken["database"].bytes > taken["table message_bodies"].bytes
    assert taken["write-ahead log"].bytes > 0
    assert await machines_agents(database) == {}
