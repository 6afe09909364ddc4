"""A mail is accepted: what is known about it, the judgement, and one commit, in two round trips to the database. The
mails of one moment share both (mail_batches)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from tinyfat.domain.mail.judgement import Facts, Judgement, RateCaps, gave_up, judge
from tinyfat.domain.mail.rhythm import LOOKED_BACK_SECONDS, WORDS_CHARS, Exchange, Rhythm, own_words
from tinyfat.domain.mail.same_content import content_digest
from tinyfat.domain.mail.states import MessageState
from tinyfat.domain.mail.threads import session_key, thread_candidates
from tinyfat.ports.ledger import Accepted, Incoming
from tinyfat.ports.mail import NoRoom
from tinyfat.recipes.reply_mail import is_reply_subject
from tinyfat.store.database import Connection, Database, lock_agent, storable
from tinyfat.store.mail_batches import MailBatches, Outcome
from tinyfat.store.quotas import UNANSWERED, MailQuotas

RATE_WINDOW_SECONDS = 3600
EXCHANGES_LOOKED_AT = 3  # times as many as the quick answers in a row that are answered: more than any pace asks for
ANOTHER_MAIL = "another mail with this Message-ID was taken already, and says something else"

Cursor: TypeAlias = AsyncCursor[TupleRow]

# What the judgement asks of the ledger: how many turns the mail's conversation and its sender had of late, and which
# mails of ours it is a report about. What a mail answers decides the conversation (RFC 5322 3.6.4), whatever became of
# the subject; then the tag. Read without a lock: a cap may be passed by the mails of one moment.
_KNOWN = """
with found as (
    select coalesce(
        (select thread_id from thread_refs where agent_id = %(agent)s and message_id = any(%(ids)s)
         order by array_position(%(ids)s::text[], message_id) limit 1),
        (select id from threads where agent_id = %(agent)s and tag = nullif(%(tag)s, ''))
    ) as thread
)
select
    (select count(*) from messages where thread_id = found.thread and direction = 'in' and turn_id is not null
        and at > now() - make_interval(secs => %(window)s)),
    (select count(*) from messages where agent_id = %(agent)s and sender = %(sender)s and direction = 'in'
        and turn_id is not null and at > now() - make_interval(secs => %(window)s)),
    array(select id::text from messages where agent_id = %(agent)s and direction = 'out'
        and (message_id = any(%(reported)s) or (id = any(%(bounced)s) and (%(report)s or recipient <> %(sender)s)))),
    exists(select from messages where agent_id = %(agent)s and id = any(%(bounced)s) and recipient = %(sender)s
        and not %(report)s),
    (select json_agg(json_build_array(
        extract(epoch from now() - one.at), extract(epoch from now() - reply.left_at),
        case when turn.created_at > one.at then extract(epoch from now() - turn.created_at) end,
        -- As domain/mail/rhythm.own_words does.
        case when %(words)s = '' then false else %(words)s = regexp_replace(split_part(left(
            substr(turn.question, position(E'\\n\\n' in turn.question) + 2), %(words_chars)s
        ), E'\\n>', 1), '[0-9 \\t\\n]+', '', 'g') end))
     from (
        (select id, turn_id, at from messages where agent_id = %(agent)s and sender = %(sender)s and direction = 'in'
            and turn_id is not null and at > now() - make_interval(secs => %(looked_back)s)
            order by at desc limit %(looked)s)
        union
        (select id, turn_id, at from messages where thread_id = found.thread and direction = 'in'
            and turn_id is not null and at > now() - make_interval(secs => %(looked_back)s)
            order by at desc limit %(looked)s)
     ) one
     join turns turn on turn.id = one.turn_id
     left join lateral (
        -- A reply may be answered before the note that it left is committed.
        select case when delivered_at > at + interval '30 seconds' then delivered_at
            when delivered_at is not null or leased_until > now() then at end as left_at
        from messages where turn_id = one.turn_id and direction = 'out' limit 1
     ) reply on true where %(looked)s > 0),
    (select extract(epoch from now() - max(at)) from messages where thread_id = found.thread and direction = 'in'
        and state = 'held' and reason like 'a loop:%%'),
    (select extract(epoch from now() - max(at)) from messages where agent_id = %(agent)s and sender = %(sender)s
        and state = 'held' and reason like 'a loop:%%')
from found
"""

# Everything a mail leaves behind, at once: in its conversation, or in one it begins. Only what the owner's side wrote
# may name a conversation: a stranger must not steer who ends up in which. Nor may a stranger's copy of a Message-ID
# stand in the way of the owner's mail; only one that was released, of the same sender, is the same mail. A copy says
# the same: another mail under the Message-ID of one that has its turn is held, for a person to look at: it may be the
# same words with a gateway's footer. The last lines look at things as they were.
_KEEP = """
with found as (
    select coalesce(
        (select thread_id from thread_refs where agent_id = %(agent)s and message_id = any(%(ids)s)
         order by array_position(%(ids)s::text[], message_id) limit 1),
        (select id from threads where agent_id = %(agent)s and tag = nullif(%(tag)s, ''))
    ) as thread
), copy as (
    select id, state from messages where agent_id = %(agent)s and direction = 'in' and message_id = %(message_id)s
        and (trusted = %(trusted)s or (turn_id is not null and sender = %(sender)s))
        and content in ('', %(content)s)
    order by trusted = %(trusted)s desc limit 1
), judged as (
    select %(turn)s::uuid is not null and exists (select from messages where agent_id = %(agent)s and direction = 'in'
        and message_id = %(message_id)s and trusted and turn_id is not null) as another
), begun as (
    insert into threads (id, agent_id, tag, subject)
    select %(new_thread)s, %(agent)s, nullif(%(tag)s, ''), %(subject)s
    from found where thread is null and not exists (select from copy)
), kept as (
    insert into messages (id, agent_id, thread_id, direction, message_id, in_reply_to, sender, recipient, subject,
        state, reason, trusted, authentication, envelope_from, question, bounce_of, size, turn_id, body_id, content)
    select %(row)s, %(agent)s, coalesce(thread, %(new_thread)s), 'in', %(message_id)s, %(in_reply_to)s, %(sender)s,
        %(recipient)s, %(subject)s, case when another then 'held' else %(state)s end,
        case when another then %(another)s else %(reason)s end, %(trusted)s, %(authentication)s, %(envelope_from)s,
        %(question)s, %(bounce_of)s, %(size)s, case when another then null else %(turn)s::uuid end, %(body_id)s,
        %(content)s
    from found, judged where not exists (select from copy)
    returning thread_id, turn_id, state
), body as (
    insert into message_bodies select %(row)s, %(raw)s from kept where %(body_id)s::uuid is null
), refs as (
    insert into thread_refs (agent_id, message_id, thread_id)
    select %(agent)s, unnest(%(ids)s::text[]), thread_id from kept where %(trusted)s on conflict do nothing
), turn as (
    insert into turns (id, agent_id, thread_id, message_row, session, question)
    select turn_id, %(agent)s, thread_id, %(row)s, %(session)s || thread_id, %(question)s
    from kept where turn_id is not null
)
select (select id from copy), coalesce((select state from copy), (select state from kept)),
    exists (select from turns where thread_id = found.thread and state in ('waiting', 'running'))
from found
"""

# One mail for several agents: its body goes once, where any of them keeps it.
_SHARED_BODY = """
insert into message_bodies select %(body_id)s, %(raw)s where exists (select from messages where body_id = %(body_id)s)
"""

# The lock on an agent's arrivals ends with the commit, and a commit that waits for the disk would make every mail of an
# agent wait for the disk alone. So that commit does not wait, and this one right behind it does: it is on disk only
# after everything before it is (one write-ahead log), and the mails of one moment share the wait.
#
# Planned once a connection: to plan `_KNOWN` for each mail takes Postgres seven times as long as to run it. Without
# sequential scans: a plan made while the tables are empty would read all of them later.
_BEGIN = """
select set_config('synchronous_commit', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('enable_seqscan', 'off', true)
"""
# Its message says nothing and is read by nobody: a commit that wrote nothing of its own would not wait.
_WAIT_FOR_DISK = "select pg_logical_emit_message(true, 'tinyfat', '')"


@dataclass(frozen=True, slots=True)
class _Known:
    turns_in_thread: int
    turns_of_sender: int
    ours_bounced: Sequence[str]  # rows of our messages that this is a report about
    from_its_reader: bool  # it came back from the very address the reply went to, and is no report: an absence note
    rhythm: Rhythm


class MailAcceptance:
    def __init__(self, database: Database, caps: RateCaps, quotas: MailQuotas) -> None:
        self._database = database
        self._caps = caps
        self._quotas = quotas
        self._batches = MailBatches(self._commit)

    async def accept(self, incoming: Sequence[Incoming]) -> list[Accepted]:
        """Commit one mail for each of its agents, all or none. When this returns it is on disk. Raises NoRoom."""
        return await self._batches.accept(incoming)

    async def _commit(self, mails: Sequence[Sequence[Incoming]]) -> list[Outcome]:
        """In the order given, which is the order of each agent's mails."""
        async with self._database.connection() as connection, connection.pipeline():
            async with connection.transaction():
                await connection.execute(_BEGIN)
                asked = [[await _ask_known(connection, one, self._caps) for one in mail] for mail in mails]
                plans = [
                    [_plan(one, await _known(cursor), self._caps) for one, cursor in zip(mail, cursors, strict=True)]
                    for mail, cursors in zip(mails, asked, strict=True)
                ]
                # Always in the same order, or two batches could each wait for the other.
                for agent_id in sorted({one.agent.id for mail in mails for one in mail}):
                    await lock_agent(connection, agent_id)
                kept = [await self._keep(connection, plan) for plan in plans]
            await connection.execute(_WAIT_FOR_DISK)
            return [await _outcome(plan, cursors) for plan, cursors in zip(plans, kept, strict=True)]

    async def _keep(self, connection: Connection, plans: Sequence[_Plan]) -> list[Cursor] | NoRoom:
        """One mail, for each of its agents."""
        if complaint := await self._complaint(connection, plans):
            return complaint
        body_id = uuid.uuid4() if len(plans) > 1 else None
        cursors = []
        for plan in plans:
            await _mark_bounced(connection, plan)
            cursors.append(await connection.execute(_KEEP, _parameters(plan, body_id)))
        if body_id:
            await connection.execute(_SHARED_BODY, {"body_id": body_id, "raw": plans[0].incoming.raw})
        return cursors

    async def _complaint(self, connection: Connection, plans: Sequence[_Plan]) -> NoRoom | None:
        """Of the whole mail: its body is kept once, and its peer hears one answer. So one agent that has room takes it
        for all of them, and a stranger to one is no reason to refuse another's owner."""
        complaint: NoRoom | None = None
        for plan in plans:
            one = plan.incoming
            try:
                if plan.judgement.state not in UNANSWERED:
                    self._quotas.conversation(one.agent.id, len(one.raw))
                    return None
                complaint = await self._quotas.unanswered(
                    connection, one.agent.id, one.mail.from_address, one.mail.message_id, len(one.raw)
                )
            except NoRoom as error:
                complaint = error
            if complaint is None:
                return None
        return complaint


@dataclass(frozen=True, slots=True)
class _Plan:
    incoming: Incoming
    known: _Known
    judgement: Judgement
    row_id: uuid.UUID
    turn_id: uuid.UUID | None


def _plan(one: Incoming, known: _Known, caps: RateCaps) -> _Plan:
    facts = Facts(
        null_return_path=not one.envelope.mail_from,
        proved=one.proved,
        allowed=one.allowed,
        from_own_agent=one.from_own_agent,
        from_itself=one.from_itself,
        named=one.named,
        to_return_path=one.to_return_path,
        is_bounce=bool(known.ours_bounced or (one.bounced_message and not known.from_its_reader)),
        turns_in_thread=known.turns_in_thread,
        turns_of_sender=known.turns_of_sender,
        rhythm=known.rhythm,
    )
    judgement = judge(one.mail, facts, caps)
    turn_id = uuid.uuid4() if judgement.state is MessageState.QUEUED else None
    return _Plan(one, known, judgement, uuid.uuid4(), turn_id)


async def _ask_known(connection: Connection, one: Incoming, caps: RateCaps) -> Cursor:
    return await connection.execute(
        _KNOWN,
        {
            "agent": one.agent.id,
            "ids": _ids(one),  # its own id first: a copy of a known mail belongs where that one is
            "tag": one.tag,
            "sender": storable(one.mail.from_address),
            "window": RATE_WINDOW_SECONDS,
            "looked_back": LOOKED_BACK_SECONDS,
            "words": storable(own_words(one.question, _is_answer(one))),
            "words_chars": WORDS_CHARS,
            "looked": caps.quick_answers_max * EXCHANGES_LOOKED_AT if one.proved and one.allowed else 0,
            "reported": _reported(one),
            "bounced": [uuid.UUID(one.bounced_message)] if one.bounced_message else [],
            "report": one.mail.report is not None,
        },
    )


async def _known(cursor: Cursor) -> _Known:
    row = await cursor.fetchone()
    assert row is not None
    in_thread_turns, of_sender_turns, bounced, from_its_reader, exchanges, in_thread, of_sender = row
    rhythm = Rhythm([Exchange(*one) for one in exchanges or ()], _float(in_thread), _float(of_sender))
    return _Known(in_thread_turns, of_sender_turns, bounced, from_its_reader, rhythm)


def _is_answer(one: Incoming) -> bool:
    return bool(one.mail.in_reply_to or one.mail.references or is_reply_subject(one.mail.subject))


def _float(seconds: Any) -> float | None:
    return None if seconds is None else float(seconds)


async def _outcome(plans: Sequence[_Plan], kept: list[Cursor] | NoRoom) -> Outcome:
    if isinstance(kept, NoRoom):
        return kept
    rows = [await cursor.fetchone() for cursor in kept]
    return [_accepted(plan, row) for plan, row in zip(plans, rows, strict=True) if row is not None]


def _parameters(plan: _Plan, body_id: uuid.UUID | None) -> dict[str, Any]:
    """`body_id`: of a body that is kept by another statement."""
    one = plan.incoming
    return {
        "row": plan.row_id,
        "turn": plan.turn_id,
        "new_thread": uuid.uuid4(),
        "agent": one.agent.id,
        "tag": one.tag,
        "session": session_key(""),
        "ids": _ids(one),
        "message_id": storable(one.mail.message_id),
        "in_reply_to": storable(one.mail.in_reply_to),
        "sender": storable(one.mail.from_address),
        "recipient": storable(one.recipient),
        "subject": storable(one.mail.subject),
        "state": plan.judgement.state,
        "reason": storable(plan.judgement.reason),
        "trusted": one.proved and one.allowed,
        "authentication": storable(one.authentication),
        "envelope_from": storable(one.envelope.mail_from),
        "question": storable(one.question),
        "bounce_of": plan.known.ours_bounced[0] if plan.known.ours_bounced else None,
        "size": len(one.raw),
        "body_id": body_id,
        "content": content_digest(one.mail),
        "another": ANOTHER_MAIL,
        "raw": None if body_id else one.raw,
    }


def _accepted(plan: _Plan, row: tuple[Any, ...]) -> Accepted:
    copy_id, state, others_open = row
    agent_id = plan.incoming.agent.id
    if copy_id is not None:
        return Accepted(str(copy_id), agent_id, MessageState(state), True)
    start = str(plan.turn_id) if state == MessageState.QUEUED and not others_open else ""
    return Accepted(str(plan.row_id), agent_id, MessageState(state), False, start)


async def _mark_bounced(connection: Connection, plan: _Plan) -> None:
    """A report of a delay changes nothing: the mail may yet arrive."""
    if plan.known.ours_bounced and gave_up(plan.incoming.mail):
        await connection.execute(
            "update messages set state = 'bounced', reason = %s where id = any(%s::uuid[])",
            (storable(plan.judgement.reason), list(plan.known.ours_bounced)),
        )


def _ids(one: Incoming) -> list[str]:
    return [storable(i) for i in dict.fromkeys([one.mail.message_id, *thread_candidates(one.mail)])]


def _reported(one: Incoming) -> list[str]:
    """The Message-IDs a report names. Only where it comes from a mail system, with nobody to answer to."""
    if one.mail.report is None or not one.mail.report.of_delivery or one.envelope.mail_from:
        return []
    return [storable(i) for i in one.mail.report.original_message_ids]
