"""The mail ledger: what came in, what became of it, what went out."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tinyfat.domain.mail.judgement import RateCaps
from tinyfat.domain.mail.states import MessageState
from tinyfat.domain.mail.threads import session_key
from tinyfat.domain.turns import TurnState
from tinyfat.ports.ledger import Accepted, Conflict, Incoming, Message, NotFound, Outgoing
from tinyfat.store.accepting import MailAcceptance
from tinyfat.store.database import Connection, Database, lock_agent, storable
from tinyfat.store.quotas import MailQuotas, Quotas

LIST_MAX = 10_000
ID_DIGITS_MIN = 6  # of an id's beginning

_COLUMNS = (
    "id, agent_id, direction, message_id, in_reply_to, thread_id, sender, recipient, subject, state, reason, size, at, "
    "turn_id, delivered_at, attempts, response, authentication, body_gone_at"
)


# The reply, and the end of its turn, at once. The same turn again: the reply that is there.
_REPLY = """
with reply as (
    insert into messages (agent_id, thread_id, direction, message_id, in_reply_to, sender, recipient, subject, state,
        turn_id, size, next_attempt_at)
    values (%(agent)s, %(thread)s, 'out', %(message_id)s, %(in_reply_to)s, %(sender)s, %(recipient)s, %(subject)s,
        'queued', %(turn)s, %(size)s, now())
    on conflict (agent_id, direction, message_id, trusted, content) do nothing returning id
), body as (
    insert into message_bodies select id, %(raw)s from reply
), refs as (
    insert into thread_refs select %(agent)s, %(message_id)s, %(thread)s from reply on conflict do nothing
), turn as (
    update turns set state = %(turn_state)s, ended_at = coalesce(ended_at, now()) where id = %(turn)s
), question as (
    update messages set state = %(question_state)s
    where direction = 'in' and turn_id = %(turn)s and state in ('queued', 'running')
)
select id from reply
union all
select id from messages where agent_id = %(agent)s and direction = 'out' and message_id = %(message_id)s
"""


class MailStore:
    def __init__(self, database: Database, caps: RateCaps, quotas: Quotas | None = None) -> None:
        self._database = database
        self.quotas = MailQuotas(database, quotas or Quotas())
        self._acceptance = MailAcceptance(database, caps, self.quotas)

    async def accept(self, incoming: Sequence[Incoming]) -> list[Accepted]:
        return await self._acceptance.accept(incoming)

    async def list(
        self, agent_id: str = "", limit: int = LIST_MAX, states: Sequence[str] = (), before: str = ""
    ) -> tuple[list[Message], bool]:
        """The newest `limit`, LIST_MAX at most, oldest first; whether there are older ones. `agent_id` "": of all
        agents; `before`: only what is older than this message. Raises NotFound for it."""
        limit = min(limit, LIST_MAX)
        wanted = ["position < %(position)s"] if before else []
        wanted += ["agent_id = %(agent)s"] if agent_id else []
        wanted += ["state = any(%(states)s)"] if states else []
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                f"select {_COLUMNS}, position from messages where {' and '.join(wanted) or 'true'} "  # noqa: S608
                "order by position desc limit %(limit)s".encode(),
                {
                    "agent": agent_id,
                    "states": list(states),
                    "position": await _position(connection, before) if before else 0,
                    "limit": limit + 1,
                },
            )
            rows = await cursor.fetchall()
        return [_message(row[:-1]) for row in reversed(rows[:limit])], len(rows) > limit

    async def show(self, row_id: str) -> tuple[Message, bytes]:
        """By the id, or by its beginning where that is one message's alone. b"" where its body is gone by its age.
        Raises NotFound."""
        first, last = _id_range(row_id)
        return await self._with_body("id between %s and %s", row_id, first, last)

    async def incoming_of(self, turn_id: str) -> tuple[Message, bytes]:
        return await self._with_body("direction = 'in' and turn_id = %s", turn_id, uuid.UUID(turn_id))

    async def _with_body(self, where: str, named: str, *values: uuid.UUID) -> tuple[Message, bytes]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                f"select {_COLUMNS}, raw from messages "  # noqa: S608
                "left join message_bodies on message_row = coalesce(body_id, id) "
                f"where {where} limit 2",
                values,
            )
            rows = await cursor.fetchall()
        if len(rows) > 1:
            raise NotFound(f"Several messages begin with {named}: give more of the id.")
        if not rows:
            raise _no_message(named)
        return _message(rows[0][:-1]), bytes(rows[0][-1] or b"")

    async def release(self, row_id: str) -> Accepted:
        """A message that was kept from an answer, for whatever reason, becomes a turn. Raises Conflict."""
        message, _ = await self.show(row_id)
        if message.body_gone_at:
            raise Conflict(f"The body of message {row_id} was deleted by its age: there is nothing left to answer.")
        async with self._database.transaction() as connection:
            await lock_agent(connection, message.agent_id)
            cursor = await connection.execute(
                "update messages set state = 'queued', reason = '' where id = %s and direction = 'in' "
                "and state in ('quarantined', 'held', 'ignored', 'bounce') returning question",
                (message.id,),
            )
            row = await cursor.fetchone()
            if row is None:
                raise Conflict(
                    f"Message {row_id} is {message.state}: only what is quarantined, held, ignored "
                    "or a bounce can be released."
                )
            await _add_references(connection, message.agent_id, message.thread, [message.message_id])
            start = await _add_turn(connection, message.id, message.agent_id, message.thread, row[0])
        return Accepted(message.id, message.agent_id, MessageState.QUEUED, False, start)

    async def record_reply(self, reply: Outgoing, state: TurnState) -> str:
        """Close the turn and write its reply down, in one commit. Twice: once. Returns the reply's row id."""
        async with self._database.connection() as connection, connection.pipeline(), connection.transaction():
            # So that a mail that arrives now either finds the turn open and is found by `next_turn`, or is first.
            await lock_agent(connection, reply.agent_id)
            cursor = await connection.execute(
                _REPLY,
                {
                    "agent": reply.agent_id,
                    "thread": reply.thread_id,
                    "turn": reply.turn_id,
                    "message_id": reply.message_id,
                    "in_reply_to": storable(reply.in_reply_to),
                    "sender": reply.sender,
                    "recipient": storable(reply.recipient),
                    "subject": storable(reply.subject),
                    "size": len(reply.raw),
                    "raw": reply.raw,
                    "turn_state": state,
                    "question_state": MessageState(state),
                },
            )
            row = await cursor.fetchone()
        assert row is not None
        return str(row[0])

    async def next_turn(self, thread_id: str) -> str:
        """The thread's first unfinished turn, if it has yet to begin; else empty."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select id, state from turns where thread_id = %s and state in ('waiting', 'running') "
                "order by position limit 1",
                (thread_id,),
            )
            row = await cursor.fetchone()
        return str(row[0]) if row and row[1] == TurnState.WAITING else ""

    async def counts(self) -> dict[str, int]:
        """How many messages are in which state, as "in queued": 3."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select direction, state, count(*) from messages group by 1, 2 order by 1, 2"
            )
            return {f"{row[0]} {row[1]}": row[2] for row in await cursor.fetchall()}


async def _add_references(connection: Connection, agent_id: str, thread_id: str, ids: Sequence[str]) -> None:
    await connection.execute(
        "insert into thread_refs (agent_id, message_id, thread_id) select %s, unnest(%s::text[]), %s "
        "on conflict do nothing",
        (agent_id, [storable(i) for i in dict.fromkeys(ids)], thread_id),
    )


async def _add_turn(connection: Connection, row_id: str, agent_id: str, thread_id: str, question: str) -> str:
    """The id of the turn where it is the first of its thread and may start; else empty."""
    cursor = await connection.execute(
        "insert into turns (agent_id, thread_id, message_row, session, question) values (%s, %s, %s, %s, %s) "
        "returning id, not exists (select from turns t where t.thread_id = %s and t.state in ('waiting', 'running'))",
        (agent_id, thread_id, row_id, session_key(thread_id), storable(question), thread_id),
    )
    row = await cursor.fetchone()
    assert row is not None
    await connection.execute("update messages set turn_id = %s where id = %s", (row[0], row_id))
    return str(row[0]) if row[1] else ""


async def _position(connection: Connection, row_id: str) -> int:
    """Raises NotFound."""
    cursor = await connection.execute(
        "select position from messages where id between %s and %s limit 2", _id_range(row_id)
    )
    rows = await cursor.fetchall()
    if len(rows) != 1:
        raise _no_message(row_id)
    return int(rows[0][0])


def _id_range(text: str) -> tuple[uuid.UUID, uuid.UUID]:
    """The first and the last id that begin so."""
    digits = text.replace("-", "").lower()
    if not ID_DIGITS_MIN <= len(digits) <= 32 or set(digits) - set("0123456789abcdef"):
        raise _no_message(text)
    return uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))


def _no_message(row_id: str) -> NotFound:
    return NotFound(f"There is no message {row_id}. `tinyfat mail list NAME` shows those there are.")


def _message(row: tuple[Any, ...]) -> Message:
    (identity, agent_id, direction, message_id, in_reply_to, thread, sender, recipient, subject, state) = row[:10]
    (reason, size, at, turn_id, delivered_at, attempts, response, authentication, body_gone_at) = row[10:]
    when: datetime = at
    return Message(
        str(identity),
        str(agent_id),
        direction,
        message_id,
        in_reply_to,
        str(thread),
        sender,
        recipient,
        subject,
        MessageState(state),
        reason,
        size,
        when,
        str(turn_id) if turn_id else None,
        delivered_at,
        attempts,
        response,
        authentication,
        body_gone_at,
    )
