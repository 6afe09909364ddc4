"""Replies of one conversation leave in their order, whatever the smarthost says to the first of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from tests.running import OWNER
from tinyfat.flows.delivery import Delivery
from tinyfat.ports.mail import Delivered, DeliveryDeferred, DeliveryRefused
from tinyfat.store.agents import AgentStore
from tinyfat.store.database import Database
from tinyfat.store.deliveries import DeliveryStore
from tinyfat.store.embedded import EmbeddedPostgres

# The server outlives whoever started it, on purpose: nobody waits for it as for a child.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


class Scripted:
    """Says the next of `answers` to each mail, then takes everything."""

    def __init__(self) -> None:
        self.answers: list[Exception] = []
        self.taken: list[str] = []

    async def send(self, envelope_from: str, recipient: str, raw: bytes) -> Delivered:
        if self.answers:
            raise self.answers.pop(0)
        self.taken.append(raw.decode())
        return Delivered("250 ok")


class Queue:
    def __init__(self, url: str, database: Database) -> None:
        self.smarthost = Scripted()
        self.deliveries = DeliveryStore(database, "me")
        self.delivery = Delivery("tinyfat.localhost", self.deliveries, self.smarthost, b"secret", lambda: self.now)
        self.now = datetime.now(UTC)
        self._url = url

    async def hold(self, agent_id: str, thread: Sequence[tuple[str, str]]) -> list[str]:
        """(recipient, text) of each reply of one thread, in its order; their row ids."""
        rows = []
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            cursor = await connection.execute(
                "insert into threads (agent_id, subject) values (%s, '') returning id", (agent_id,)
            )
            (thread_id,) = await cursor.fetchone() or ()
            for recipient, text in thread:
                cursor = await connection.execute(
                    "insert into messages (agent_id, thread_id, direction, message_id, sender, recipient, state, size, "
                    "next_attempt_at) values (%s, %s, 'out', gen_random_uuid(), '', %s, 'queued', 0, now()) "
                    "returning id",
                    (agent_id, thread_id, recipient),
                )
                (row_id,) = await cursor.fetchone() or ()
                await connection.execute("insert into message_bodies values (%s, %s)", (row_id, text.encode()))
                rows.append(str(row_id))
        return rows


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[tuple[Queue, str]]:
    postgres = EmbeddedPostgres(tmp_path)
    await postgres.start()
    database = Database(postgres.url)
    try:
        await database.open()
        await database.migrate()
        agent = await AgentStore(database).create("ada", OWNER, "echo", "process")
        yield Queue(postgres.url, database), agent.id
    finally:
        await database.close()
        await postgres.stop()


async def test_a_deferred_reply_holds_up_those_after_it(queue: tuple[Queue, str]) -> None:
    held, agent_id = queue
    first, second, third = await held.hold(agent_id, [(OWNER, "1"), (OWNER, "2"), (OWNER, "3")])
    held.smarthost.answers = [DeliveryDeferred("451 come again")]
    for row in (first, second, third):
        await held.delivery.attempt(row)
    assert held.smarthost.taken == []
    await held.delivery.sweep()  # only the first is due, and not yet
    assert held.smarthost.taken == []
    await held.deliveries.retry_now()
    await held.delivery.sweep()
    assert held.smarthost.taken == ["1", "2", "3"]


async def test_a_refused_reply_frees_those_after_it(queue: tuple[Queue, str]) -> None:
    held, agent_id = queue
    first, second = await held.hold(agent_id, [(OWNER, "1"), (OWNER, "2")])
    await held.delivery.attempt(second)
    assert held.smarthost.taken == []
    held.smarthost.answers = [DeliveryRefused("550 nobody here")]
    await held.delivery.attempt(first)
    assert held.smarthost.taken == ["2"]


async def test_other_readers_and_other_conversations_are_not_held_up(queue: tuple[Queue, str]) -> None:
    held, agent_id = queue
    first, other_reader = await held.hold(agent_id, [(OWNER, "1"), ("friend@example.org", "2")])
    (other_thread,) = await held.hold(agent_id, [(OWNER, "3")])
    held.smarthost.answers = [DeliveryDeferred("451 come again")]
    for row in (first, other_reader, other_thread):
        await held.delivery.attempt(row)
    assert held.smarthost.taken == ["2", "3"]
