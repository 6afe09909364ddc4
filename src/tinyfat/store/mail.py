"""The mail ledger: what came in, what became of it, what went out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg

from tinyfat.domain.mail.judgement import Facts, RateCaps, judge
from tinyfat.domain.mail.states import MessageState
from tinyfat.domain.mail.threads import session_key, thread_candidates
from tinyfat.domain.turns import TurnState
from tinyfat.ports.ledger import Accepted, Conflict, Incoming, Message, NotFound, Outgoing
from tinyfat.store.database import Connection, Database, lock_agent

RATE_WINDOW_SECONDS = 3600
LIST_MAX = 10_000

_COLUMNS = (
    "id, agent_id, direction, message_id, in_reply_to, thread_id, sender, recipient, subject, state, reason, size, at, "
    "turn_id, delivered_at, attempts, response, authentication"
)


class MailStore:
    def __init__(self, database: Database, caps: RateCaps) -> None:
        self._database = database
        self._caps = caps

    async def accept(self, incoming: Sequence[Incoming]) -> list[Accepted]:
        """Commit one mail for each of its agents, all or none. When this returns it is on disk."""
        async with self._database.transaction() as connection:
            # Always in the same order, or two mails for two agents could each wait for the other.
            ordered = sorted(incoming, key=lambda one: one.agent.id)
            return [await self._accept_one(connection, one) for one in ordered]

    async def _accept_one(self, connection: Connection, one: Incoming) -> Accepted:
        await lock_agent(connection, one.agent.id)
        thread_id, known_thread = await _thread_of(connection, one)
        facts = Facts(
            null_return_path=not one.envelope.mail_from,
            proved=one.proved,
            allowed=one.allowed,
            from_own_agent=one.from_own_agent,
            from_itself=one.from_itself,
            is_bounce=bool(one.bounced_message or await _reported(connection, one)),
            turns_in_thread=await _turns_since(connection, "thread_id", thread_id) if known_thread else 0,
            turns_of_sender=await _turns_since(
                connection, "agent_id = %s and sender", one.mail.from_address, one.agent.id
            ),
        )
        judgement = judge(one.mail, facts, self._caps)
        row_id = await _insert_incoming(connection, one, thread_id, judgement.state, judgement.reason)
        if row_id is None:
            return await _the_first_copy(connection, one)
        await _remember_references(connection, one, thread_id)
        if facts.is_bounce:
            await _mark_bounced(connection, one, judgement.reason)
        start = ""
        if judgement.state is MessageState.QUEUED:
            start = await _add_turn(connection, row_id, one.agent.id, thread_id, one.question)
        return Accepted(row_id, one.agent.id, judgement.state, False, start)

    async def list(self, agent_id: str) -> list[Message]:
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                f"select * from (select {_COLUMNS}, position from messages where agent_id = %s "  # noqa: S608
                "order by position desc limit %s) newest order by position",
                (agent_id, LIST_MAX),
            )
            return [_message(row[:-1]) for row in await cursor.fetchall()]

    async def show(self, row_id: str) -> tuple[Message, bytes]:
        return await self._with_body("id::text = %s", row_id)

    async def incoming_of(self, turn_id: str) -> tuple[Message, bytes]:
        return await self._with_body("direction = 'in' and turn_id::text = %s", turn_id)

    async def _with_body(self, where: str, value: str) -> tuple[Message, bytes]:
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                f"select {_COLUMNS}, raw from messages join message_bodies on message_row = id "  # noqa: S608
                f"where {where}",
                (value,),
            )
            row = await cursor.fetchone()
        if row is None:
            raise NotFound(f"There is no message {value}. `tinyfat mail list NAME` shows those there are.")
        return _message(row[:-1]), bytes(row[-1])

    async def release(self, row_id: str) -> Accepted:
        """Let a message out of quarantine (or from over a rate cap): it becomes a turn. Raises Conflict."""
        message, _ = await self.show(row_id)
        if not message.sender:
            raise Conflict(f"Message {row_id} has no usable From address: there is nobody to answer.")
        async with self._database.transaction() as connection:
            await lock_agent(connection, message.agent_id)
            cursor = await connection.execute(
                "update messages set state = 'queued', reason = '' where id = %s and direction = 'in' "
                "and state in ('quarantined', 'held') returning question",
                (message.id,),
            )
            row = await cursor.fetchone()
            if row is None:
                raise Conflict(
                    f"Message {row_id} is {message.state}: only one in quarantine or held back can be released."
                )
            await _add_references(connection, message.agent_id, message.thread, [message.message_id])
            start = await _add_turn(connection, message.id, message.agent_id, message.thread, row[0])
        return Accepted(message.id, message.agent_id, MessageState.QUEUED, False, start)

    async def record_reply(self, reply: Outgoing, state: TurnState) -> str:
        """Close the turn and write its reply down, in one commit. Twice: once. Returns the reply's row id."""
        async with self._database.transaction() as connection:
            await lock_agent(connection, reply.agent_id)
            row_id = await _insert_reply(connection, reply)
            await connection.execute(
                "update turns set state = %s, ended_at = coalesce(ended_at, now()) where id = %s",
                (state, reply.turn_id),
            )
            await connection.execute(
                "update messages set state = %s where direction = 'in' and turn_id = %s "
                "and state in ('queued', 'running')",
                (MessageState.ANSWERED if state is TurnState.ANSWERED else MessageState.FAILED, reply.turn_id),
            )
            return row_id

    async def next_turn(self, thread_id: str) -> str:
        """The thread's first unfinished turn, if it has yet to begin; else empty."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "select id, state from turns where thread_id = %s and state in ('waiting', 'running') "
                "order by position limit 1",
                (thread_id,),
            )
            row = await cursor.fetchone()
        return str(row[0]) if row and row[1] == TurnState.WAITING else ""

    async def counts(self) -> dict[str, int]:
        """How many messages are in which state, as "in queued": 3."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "select direction, state, count(*) from messages group by 1, 2 order by 1, 2"
            )
            return {f"{row[0]} {row[1]}": row[2] for row in await cursor.fetchall()}


async def _thread_of(connection: Connection, one: Incoming) -> tuple[str, bool]:
    """The conversation this mail belongs to, and whether there was one already.

    What the mail answers decides (RFC 5322 3.6.4), whatever became of the subject; then the tag; else it begins one.
    """
    candidates = list(thread_candidates(one.mail))
    own = [one.mail.message_id, *candidates]  # a copy of a known mail belongs where that one is
    cursor = await connection.execute(
        "select thread_id from thread_refs where agent_id = %s and message_id = any(%s) "
        "order by array_position(%s::text[], message_id) limit 1",
        (one.agent.id, own, own),
    )
    if row := await cursor.fetchone():
        return str(row[0]), True
    if one.tag:
        cursor = await connection.execute(
            "select id from threads where agent_id = %s and tag = %s", (one.agent.id, one.tag)
        )
        if row := await cursor.fetchone():
            return str(row[0]), True
    cursor = await connection.execute(
        "insert into threads (agent_id, tag, subject) values (%s, %s, %s) returning id",
        (one.agent.id, one.tag or None, storable(one.mail.subject)),
    )
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0]), False


async def _turns_since(connection: Connection, what: str, value: str, *before: str) -> int:
    cursor = await connection.execute(
        f"select count(*) from messages where {what} = %s and direction = 'in' and turn_id is not null "  # noqa: S608
        "and at > now() - make_interval(secs => %s)",
        (*before, value, RATE_WINDOW_SECONDS),
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _insert_incoming(
    connection: Connection, one: Incoming, thread_id: str, state: MessageState, reason: str
) -> str | None:
    """None where this mail is here already."""
    bounce_of = await _bounced_row(connection, one)
    cursor = await connection.execute(
        "insert into messages (agent_id, thread_id, direction, message_id, in_reply_to, sender, recipient, subject, "
        "state, reason, trusted, authentication, envelope_from, question, bounce_of, size) "
        "values (%s, %s, 'in', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing returning id",
        (
            one.agent.id,
            thread_id,
            storable(one.mail.message_id),
            storable(one.mail.in_reply_to),
            storable(one.mail.from_address),
            one.recipient,
            storable(one.mail.subject),
            state,
            reason,
            one.proved and one.allowed,
            one.authentication,
            storable(one.envelope.mail_from),
            storable(one.question),
            bounce_of,
            len(one.raw),
        ),
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    await connection.execute("insert into message_bodies values (%s, %s)", (row[0], one.raw))
    return str(row[0])


async def _the_first_copy(connection: Connection, one: Incoming) -> Accepted:
    cursor = await connection.execute(
        "select id, state from messages where agent_id = %s and direction = 'in' and message_id = %s and trusted = %s",
        (one.agent.id, storable(one.mail.message_id), one.proved and one.allowed),
    )
    row = await cursor.fetchone()
    assert row is not None
    return Accepted(str(row[0]), one.agent.id, MessageState(row[1]), True)


async def _remember_references(connection: Connection, one: Incoming, thread_id: str) -> None:
    """Only what the owner's side wrote may name a conversation: a stranger must not steer who ends up in which."""
    if one.proved and one.allowed:
        await _add_references(connection, one.agent.id, thread_id, [one.mail.message_id, *thread_candidates(one.mail)])


async def _add_references(connection: Connection, agent_id: str, thread_id: str, ids: Sequence[str]) -> None:
    await connection.execute(
        "insert into thread_refs (agent_id, message_id, thread_id) select %s, unnest(%s::text[]), %s "
        "on conflict do nothing",
        (agent_id, [storable(i) for i in dict.fromkeys(ids)], thread_id),
    )


async def _bounced_row(connection: Connection, one: Incoming) -> str | None:
    """A bounce address whose seal holds may outlive its message: a row is tied only to one that is there."""
    if not one.bounced_message:
        return None
    cursor = await connection.execute(
        "select id from messages where id = %s and agent_id = %s", (one.bounced_message, one.agent.id)
    )
    row = await cursor.fetchone()
    return str(row[0]) if row else None


async def _reported(connection: Connection, one: Incoming) -> list[str]:
    """Our messages that this report names. Only where it comes from a mail system, with nobody to answer to."""
    report = one.mail.report
    if report is None or one.envelope.mail_from:
        return []
    cursor = await connection.execute(
        "select id from messages where agent_id = %s and direction = 'out' and message_id = any(%s)",
        (one.agent.id, [storable(i) for i in report.original_message_ids]),
    )
    return [str(row[0]) for row in await cursor.fetchall()]


async def _mark_bounced(connection: Connection, one: Incoming, reason: str) -> None:
    """A delay is told by the incoming row alone: the mail may yet arrive."""
    if one.mail.report is not None and not one.mail.report.failed:
        return
    ours = [one.bounced_message] if one.bounced_message else await _reported(connection, one)
    await connection.execute(
        "update messages set state = 'bounced', reason = %s where id = any(%s::uuid[]) and agent_id = %s "
        "and direction = 'out'",
        (storable(reason), ours, one.agent.id),
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


async def _insert_reply(connection: Connection, reply: Outgoing) -> str:
    try:
        async with connection.transaction():
            cursor = await connection.execute(
                "insert into messages (agent_id, thread_id, direction, message_id, in_reply_to, sender, recipient, "
                "subject, state, turn_id, size, next_attempt_at) "
                "values (%s, %s, 'out', %s, %s, %s, %s, %s, 'queued', %s, %s, now()) returning id",
                (
                    reply.agent_id,
                    reply.thread_id,
                    reply.message_id,
                    storable(reply.in_reply_to),
                    reply.sender,
                    storable(reply.recipient),
                    storable(reply.subject),
                    reply.turn_id,
                    len(reply.raw),
                ),
            )
            row = await cursor.fetchone()
            assert row is not None
    except psycopg.errors.UniqueViolation:
        cursor = await connection.execute(
            "select id from messages where agent_id = %s and direction = 'out' and message_id = %s",
            (reply.agent_id, reply.message_id),
        )
        row = await cursor.fetchone()
        assert row is not None
        return str(row[0])
    await connection.execute("insert into message_bodies values (%s, %s)", (row[0], reply.raw))
    await _add_references(connection, reply.agent_id, reply.thread_id, [reply.message_id])
    return str(row[0])


def storable(text: str) -> str:
    """Postgres' text holds every character but NUL, and no lone surrogate."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _message(row: tuple[Any, ...]) -> Message:
    (identity, agent_id, direction, message_id, in_reply_to, thread, sender, recipient, subject, state) = row[:10]
    (reason, size, at, turn_id, delivered_at, attempts, response, authentication) = row[10:]
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
    )
