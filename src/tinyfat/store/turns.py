"""Turns on their way to a box and back. The row is the truth; signals only say that it changed."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from typing import Any

from tinyfat.domain.failures import read_failure
from tinyfat.domain.turns import Attachment, Turn, TurnOutcome, TurnResult, TurnState
from tinyfat.engine.mail_reading import MailReading
from tinyfat.ports.ledger import NotFound, StoreUnavailable, TurnRow
from tinyfat.store.database import Connection, Database, storable
from tinyfat.store.signals import Signals, Words, either

OFFERS = "tinyfat_offers"  # payload: "<machine id> <turn id>"
RESULTS = "tinyfat_results"  # payload: "<turn id>"
LOOK_SECONDS = 2.0  # a waiter looks for itself this often, should a signal have been lost
USAGE_CHARS_MAX = 10_000
OFFERS_MAX = 1000  # as many as a box holds
UNRECEIVED_SECONDS = 3.0
MAKING_SECONDS_MAX = 35 * 60.0  # as long as flows/provision waits for a runtime and its first answer

# A turn is offered: it runs, its message says so, and whoever holds the box's link hears of it. One round trip.
_OFFER = """
with offered as (
    update turns set state = 'running', offered_at = coalesce(offered_at, now()),
        deadline_at = coalesce(deadline_at, now() + make_interval(secs => %(deadline)s + case when exists(
            select from agents where agents.id = agent_id and agents.state = 'creating'
        ) and message_row is not null then %(making)s else 0 end))
    where id = %(turn)s and state in ('waiting', 'running') returning id, agent_id
), marked as (
    update messages set state = 'running' where turn_id = %(turn)s and direction = 'in' and state = 'queued'
)
select pg_notify('tinyfat_offers', machine.id || ' ' || offered.id)
from offered join machines machine on machine.agent_id = offered.agent_id and machine.wanted and machine.current
"""

# A box gets the turns of its agent while its machine is the one that answers; between two machines mail waits.
_ITS_OWN = (
    "join machines m on m.agent_id = t.agent_id and m.current "
    "join agents a on a.id = t.agent_id and (a.moving_at is null or t.message_row is null) "
)

# A turn's first result stays; from a box, only for a turn of its own agent.
_KEEP_RESULT = """
with kept as (
    update turns set outcome = %(outcome)s, answer = %(answer)s, failure = %(failure)s, detail = %(detail)s,
        asked_at = %(asked_at)s, answered_at = %(answered_at)s, usage = %(usage)s, result_at = now(),
        box_received_at = coalesce(box_received_at, now())
    where id = %(turn)s and outcome is null and state = 'running'
        and (%(machine)s::uuid is null or agent_id = (select agent_id from machines where id = %(machine)s::uuid))
    returning id
), attached as (
    insert into turn_attachments
    select kept.id, file.* from kept, unnest(
        %(places)s::int[], %(filenames)s::text[], %(media_types)s::text[], %(contents)b::bytea[]
    ) file
)
select pg_notify('tinyfat_results', id::text) from kept
"""


class TurnStore:
    def __init__(self, database: Database, signals: Signals, mails: MailReading | None = None) -> None:
        self._database = database
        self._mails = mails or MailReading()
        self._results = Words(signals, RESULTS)

    async def probe(self, turn_id: str, agent_id: str, question: str) -> None:
        """A question of our own: is the agent there? Twice with the same id: once."""
        async with self._database.connection() as connection:
            await connection.execute(
                "insert into turns (id, agent_id, session, question) values (%s, %s, %s, %s) on conflict do nothing",
                (turn_id, agent_id, f"probe:{turn_id}", question),
            )

    async def offer(self, turn_id: str, deadline_seconds: float) -> None:
        """From now on the agent's box is to have it. Offered twice, the deadline stays the first one. Mail to an agent
        that is still being made waits for that, too."""
        async with self._database.connection() as connection:
            await connection.execute(
                _OFFER, {"turn": turn_id, "deadline": deadline_seconds, "making": MAKING_SECONDS_MAX}
            )

    async def open_for(self, machine_id: str) -> list[str]:
        """The turns this machine's box should be working on, oldest first."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                f"select t.id from turns t {_ITS_OWN} where m.id = %s "  # noqa: S608
                "and t.state = 'running' and t.outcome is null order by t.position limit %s",
                (machine_id, OFFERS_MAX),
            )
            return [str(row[0]) for row in await cursor.fetchall()]

    async def unreceived(self, machine_ids: Sequence[str]) -> list[tuple[str, str]]:
        """(machine id, turn id) of offers that no box has confirmed: the signal or the frame was lost."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                f"select m.id, t.id from turns t {_ITS_OWN} where m.id = any(%s::uuid[]) "  # noqa: S608
                "and t.state = 'running' and t.outcome is null and t.box_received_at is null "
                "and t.offered_at < now() - make_interval(secs => %s) "
                "order by t.position limit %s",
                (list(machine_ids), UNRECEIVED_SECONDS, OFFERS_MAX),
            )
            return [(str(row[0]), str(row[1])) for row in await cursor.fetchall()]

    async def for_box(self, turn_id: str, machine_id: str) -> Turn | None:
        """What the box gets to see; None where it is not this machine's, or nobody waits for it any more."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select t.session, t.question, extract(epoch from t.deadline_at - now())::float, b.raw "  # noqa: S608
                f"from turns t {_ITS_OWN} left join messages q on q.id = t.message_row "
                "left join message_bodies b on b.message_row = coalesce(q.body_id, q.id) "
                "where m.id = %s and t.id = %s and t.state = 'running' and t.outcome is null",
                (machine_id, turn_id),
            )
            row = await cursor.fetchone()
        if row is None:
            return None
        attachments: tuple[Attachment, ...] = ()
        if row[3] is not None:
            attachments = (await self._mails.read_again(bytes(row[3]), machine_id)).attachments
        return Turn(turn_id, row[0], row[1], max(0.0, row[2]), attachments)

    async def received(self, turn_id: str, machine_id: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "update turns set box_received_at = coalesce(box_received_at, now()) where id = %s "
                "and agent_id = (select agent_id from machines where id = %s)",
                (_uuid(turn_id), machine_id),
            )

    async def expected(self, turn_ids: Sequence[str], machine_id: str) -> set[str]:
        """Of these, the turns of this machine's agent whose result is still waited for."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select id::text from turns where id = any(%s::uuid[]) and outcome is null and state = 'running' "
                "and agent_id = (select agent_id from machines where id = %s)",
                ([known for known in map(_uuid, turn_ids) if known], machine_id),
            )
            return {str(row[0]) for row in await cursor.fetchall()}

    async def answered(self, turn_id: str, machine_id: str, result: TurnResult) -> None:
        """Keep the box's answer. The first one counts; one for another agent's or an ended turn changes nothing."""
        await self._keep_result(turn_id, machine_id, result)

    async def give_up(self, turn_id: str, result: TurnResult) -> None:
        """Nobody answered in time. An answer that is here already stands."""
        await self._keep_result(turn_id, None, result)

    async def _keep_result(self, turn_id: str, machine_id: str | None, result: TurnResult) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                _KEEP_RESULT,
                {
                    "turn": _uuid(turn_id),
                    "machine": machine_id,
                    "outcome": result.outcome,
                    "answer": storable(result.text),
                    "failure": storable(result.failure.written()) if result.failure else "",
                    "detail": storable(result.detail),
                    "asked_at": result.received_at,
                    "answered_at": result.answered_at,
                    "usage": _usage(result.usage),
                    "places": list(range(len(result.attachments))),
                    "filenames": [storable(a.filename) for a in result.attachments],
                    "media_types": [storable(a.media_type) for a in result.attachments],
                    "contents": [a.content for a in result.attachments],
                },
            )

    async def load(self, turn_id: str) -> TurnRow:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select agent_id, thread_id, message_row, t.state, session, question, deadline_at, attempt, outcome, "
                "answer, failure, detail, asked_at, answered_at, usage, "
                "extract(epoch from deadline_at - case when moving_at is null or message_row is null then now() "
                "else greatest(moving_at, offered_at) end)::float, result_at, "  # held: it does not run
                "exists (select from turn_attachments where turn_id = t.id) "
                "from turns t join agents on agents.id = agent_id where t.id = %s",
                (turn_id,),
            )
            row = await cursor.fetchone()
            if row is None:
                raise NotFound(f"There is no turn {turn_id}.")
            attachments = await _attachments(connection, turn_id) if row[-1] else ()
        return _turn_row(turn_id, row[:-1], attachments)

    async def wait_for_result(self, turn_id: str) -> TurnRow:
        """Wait for the result, or until the deadline has passed (then `result` is None)."""
        with self._results.heard(turn_id) as changed:
            while True:
                changed.clear()
                try:
                    row = await self.load(turn_id)
                except StoreUnavailable:
                    await asyncio.sleep(LOOK_SECONDS)
                    continue
                if row.result is not None or row.seconds_left <= 0:
                    return row
                # Bounded by the deadline: each round ends by a signal, by LOOK_SECONDS or by the deadline.
                await either(changed, min(LOOK_SECONDS, row.seconds_left))

    async def finish_probe(self, turn_id: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "update turns set state = coalesce(outcome, 'failed'), ended_at = now() where id = %s", (turn_id,)
            )

    async def startable(self, limit: int) -> list[tuple[str, int]]:
        """(turn id, attempt) of turns that are first in their thread and have waited a while: their start was lost."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select id, attempt from (select distinct on (thread_id) id, attempt, created_at, position "
                "from turns where state in ('waiting', 'running') and thread_id is not null "
                "order by thread_id, position) first "
                "where created_at < now() - interval '1 second' order by position limit %s",
                (limit,),
            )
            return [(str(row[0]), row[1]) for row in await cursor.fetchall()]

    async def retry_as(self, turn_id: str, attempt: int) -> None:
        """The flow that carried the turn broke: the next one has another number."""
        async with self._database.connection() as connection:
            await connection.execute(
                "update turns set attempt = %s where id = %s and attempt = %s", (attempt, turn_id, attempt - 1)
            )


def _usage(usage: dict[str, Any]) -> str:
    """The box is hostile: what it says of tokens is kept only where it is small and plain."""
    try:
        text = json.dumps(usage, allow_nan=False)
    except (ValueError, RecursionError):
        return "{}"
    return text if len(text) <= USAGE_CHARS_MAX and "\\u0000" not in text and "\\ud" not in text else "{}"


def _uuid(text: str) -> uuid.UUID | None:
    """What a box says is a turn's id may be anything; None matches no row."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


async def _attachments(connection: Connection, turn_id: str) -> tuple[Attachment, ...]:
    cursor = await connection.execute(
        "select filename, media_type, content from turn_attachments where turn_id = %s order by place", (turn_id,)
    )
    return tuple(Attachment(row[0], row[1], bytes(row[2])) for row in await cursor.fetchall())


def _turn_row(turn_id: str, row: tuple[Any, ...], attachments: tuple[Attachment, ...]) -> TurnRow:
    agent_id, thread_id, message_row, state, session, question, deadline_at, attempt, outcome = row[:9]
    answer, failure, detail, asked_at, answered_at, usage, seconds_left, result_at = row[9:]
    result = None
    if outcome:
        result = TurnResult(
            TurnOutcome(outcome), answer, attachments, read_failure(failure), detail, asked_at or 0.0,
            answered_at or 0.0, usage,
        )  # fmt: skip
    return TurnRow(
        turn_id,
        str(agent_id),
        str(thread_id) if thread_id else None,
        str(message_row) if message_row else None,
        TurnState(state),
        session,
        question,
        deadline_at,
        attempt,
        seconds_left if seconds_left is not None else 0.0,
        result_at,
        result,
    )
