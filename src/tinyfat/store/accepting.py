"""A mail is accepted: what is known about it, the judgement, and one commit, in two round trips to the database."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from tinyfat.domain.mail.judgement import Facts, Judgement, RateCaps, judge
from tinyfat.domain.mail.states import MessageState
from tinyfat.domain.mail.threads import session_key, thread_candidates
from tinyfat.ports.ledger import Accepted, Incoming
from tinyfat.store.database import Connection, Database, lock_agent, storable

RATE_WINDOW_SECONDS = 3600

# What the ledger knows before a mail: is it here already; the conversation it belongs to; what its sender had.
# What a mail answers decides the conversation (RFC 5322 3.6.4), whatever became of the subject; then the tag.
_KNOWN = """
with thread as (
    select coalesce(
        (select thread_id from thread_refs where agent_id = %(agent)s and message_id = any(%(ids)s)
         order by array_position(%(ids)s::text[], message_id) limit 1),
        (select id from threads where agent_id = %(agent)s and tag = nullif(%(tag)s, ''))
    ) as id
)
select thread.id,
    (select id from messages where agent_id = %(agent)s and direction = 'in' and message_id = %(message_id)s
        and trusted = %(trusted)s),
    (select state from messages where agent_id = %(agent)s and direction = 'in' and message_id = %(message_id)s
        and trusted = %(trusted)s),
    (select count(*) from messages where thread_id = thread.id and direction = 'in' and turn_id is not null
        and at > now() - make_interval(secs => %(window)s)),
    (select count(*) from messages where agent_id = %(agent)s and sender = %(sender)s and direction = 'in'
        and turn_id is not null and at > now() - make_interval(secs => %(window)s)),
    array(select id::text from messages where agent_id = %(agent)s and direction = 'out'
        and (message_id = any(%(reported)s) or id = any(%(bounced)s)))
from thread
"""

# Everything a mail leaves behind, at once. Only what the owner's side wrote may name a conversation: a stranger must
# not steer who ends up in which. The last line looks at the turns as they were before.
_KEEP = """
with thread as (
    insert into threads (id, agent_id, tag, subject)
    select %(thread)s, %(agent)s, nullif(%(tag)s, ''), %(subject)s where %(new_thread)s
), message as (
    insert into messages (id, agent_id, thread_id, direction, message_id, in_reply_to, sender, recipient, subject,
        state, reason, trusted, authentication, envelope_from, question, bounce_of, size, turn_id)
    values (%(row)s, %(agent)s, %(thread)s, 'in', %(message_id)s, %(in_reply_to)s, %(sender)s, %(recipient)s,
        %(subject)s, %(state)s, %(reason)s, %(trusted)s, %(authentication)s, %(envelope_from)s, %(question)s,
        %(bounce_of)s, %(size)s, %(turn)s)
), body as (
    insert into message_bodies values (%(row)s, %(raw)s)
), refs as (
    insert into thread_refs (agent_id, message_id, thread_id)
    select %(agent)s, unnest(%(ids)s::text[]), %(thread)s where %(trusted)s on conflict do nothing
), turn as (
    insert into turns (id, agent_id, thread_id, message_row, session, question)
    select %(turn)s, %(agent)s, %(thread)s, %(row)s, %(session)s, %(question)s where %(turn)s::uuid is not null
)
select exists (select from turns where thread_id = %(thread)s and state in ('waiting', 'running'))
"""


@dataclass(frozen=True, slots=True)
class _Known:
    thread_id: str  # "" where this mail begins a conversation
    row_id: str  # of the copy that is here already; "" where there is none
    state: str
    turns_in_thread: int
    turns_of_sender: int
    ours_bounced: Sequence[str]  # rows of our messages that this is a report about


class MailAcceptance:
    def __init__(self, database: Database, caps: RateCaps) -> None:
        self._database = database
        self._caps = caps

    async def accept(self, incoming: Sequence[Incoming]) -> list[Accepted]:
        """Commit one mail for each of its agents, all or none. When this returns it is on disk."""
        async with self._database.connection() as connection, connection.pipeline(), connection.transaction():
            # Always in the same order, or two mails for two agents could each wait for the other.
            ordered = sorted(incoming, key=lambda one: one.agent.id)
            return [await self._accept_one(connection, one) for one in ordered]

    async def _accept_one(self, connection: Connection, one: Incoming) -> Accepted:
        await lock_agent(connection, one.agent.id)
        known = await _known(connection, one)
        if known.row_id:
            return Accepted(known.row_id, one.agent.id, MessageState(known.state), True)
        facts = Facts(
            null_return_path=not one.envelope.mail_from,
            proved=one.proved,
            allowed=one.allowed,
            from_own_agent=one.from_own_agent,
            from_itself=one.from_itself,
            is_bounce=bool(one.bounced_message or known.ours_bounced),
            turns_in_thread=known.turns_in_thread,
            turns_of_sender=known.turns_of_sender,
        )
        judgement = judge(one.mail, facts, self._caps)
        if facts.is_bounce:
            await _mark_bounced(connection, one, known.ours_bounced, judgement.reason)
        return await _keep(connection, one, known, judgement)


async def _known(connection: Connection, one: Incoming) -> _Known:
    cursor = await connection.execute(
        _KNOWN,
        {
            "agent": one.agent.id,
            "ids": _ids(one),  # its own id first: a copy of a known mail belongs where that one is
            "tag": one.tag,
            "message_id": storable(one.mail.message_id),
            "trusted": one.proved and one.allowed,
            "sender": storable(one.mail.from_address),
            "window": RATE_WINDOW_SECONDS,
            "reported": _reported(one),
            "bounced": [uuid.UUID(one.bounced_message)] if one.bounced_message else [],
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return _Known(str(row[0] or ""), str(row[1] or ""), row[2] or "", row[3], row[4], row[5])


async def _keep(connection: Connection, one: Incoming, known: _Known, judgement: Judgement) -> Accepted:
    row_id = uuid.uuid4()
    turn_id = uuid.uuid4() if judgement.state is MessageState.QUEUED else None
    thread_id = known.thread_id or str(uuid.uuid4())
    cursor = await connection.execute(
        _KEEP,
        {
            "row": row_id,
            "turn": turn_id,
            "thread": thread_id,
            "new_thread": not known.thread_id,
            "agent": one.agent.id,
            "tag": one.tag,
            "session": session_key(thread_id),
            "ids": _ids(one),
            "message_id": storable(one.mail.message_id),
            "in_reply_to": storable(one.mail.in_reply_to),
            "sender": storable(one.mail.from_address),
            "recipient": storable(one.recipient),
            "subject": storable(one.mail.subject),
            "state": judgement.state,
            "reason": storable(judgement.reason),
            "trusted": one.proved and one.allowed,
            "authentication": storable(one.authentication),
            "envelope_from": storable(one.envelope.mail_from),
            "question": storable(one.question),
            "bounce_of": known.ours_bounced[0] if known.ours_bounced else None,
            "size": len(one.raw),
            "raw": one.raw,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    start = str(turn_id) if turn_id and not row[0] else ""
    return Accepted(str(row_id), one.agent.id, judgement.state, False, start)


async def _mark_bounced(connection: Connection, one: Incoming, rows: Sequence[str], reason: str) -> None:
    """A report of a delay changes nothing: the mail may yet arrive."""
    if one.mail.report is None or one.mail.report.failed:
        await connection.execute(
            "update messages set state = 'bounced', reason = %s where id = any(%s::uuid[])",
            (storable(reason), list(rows)),
        )


def _ids(one: Incoming) -> list[str]:
    return [storable(i) for i in dict.fromkeys([one.mail.message_id, *thread_candidates(one.mail)])]


def _reported(one: Incoming) -> list[str]:
    """The Message-IDs a report names. Only where it comes from a mail system, with nobody to answer to."""
    if one.mail.report is None or one.envelope.mail_from:
        return []
    return [storable(i) for i in one.mail.report.original_message_ids]
