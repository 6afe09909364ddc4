"""A mail is accepted: what is known about it, the judgement, and one commit, in two round trips to the database. The
mails of one moment share both (mail_batches)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import TupleRow

from tinyfat.domain.mail.judgement import Facts, Judgement, RateCaps, gave_up, judge
from tinyfat.domain.mail.same_content import content_digest
from tinyfat.domain.mail.states import MessageState
from tinyfat.domain.mail.threads import session_key
from tinyfat.ports.ledger import Accepted, Incoming
from tinyfat.ports.mail import NoRoom
from tinyfat.store.database import PLANNED_ONCE, Connection, Database, lock_agent, storable
from tinyfat.store.known_mail import Known, ask_known, ids_of
from tinyfat.store.mail_batches import LANES, MailBatches, Outcome
from tinyfat.store.quotas import UNANSWERED, MailQuotas

ANOTHER_MAIL = "another mail with this Message-ID was taken already, and says something else"

_KEEP = "select kept_copy, kept_state, kept_open from mail_keep(%s::jsonb, %b::bytea[])"


class MailAcceptance:
    def __init__(self, database: Database, caps: RateCaps, quotas: MailQuotas) -> None:
        self._database = database
        self._caps = caps
        self._quotas = quotas
        self._connections = [database.one_connection(PLANNED_ONCE) for _ in range(LANES)]
        self._batches = MailBatches(self._commit)

    async def accept(self, incoming: Sequence[Incoming]) -> list[Accepted]:
        """Commit one mail for each of its agents, all or none. When this returns it is on disk. Raises NoRoom."""
        return await self._batches.accept(incoming)

    async def _commit(self, mails: Sequence[Sequence[Incoming]]) -> list[Outcome]:
        """In the order given, which is the order of each agent's mails."""
        connection = self._connections.pop()
        try:
            flat = [one for mail in mails for one in mail]
            known = iter(await ask_known(connection, flat, self._caps))
            plans = [[_plan(one, next(known), self._caps) for one in mail] for mail in mails]
            if any(plan.judgement.state in UNANSWERED for mail in plans for plan in mail):
                return await self._keep_within_quotas(plans)
            complaints = [await self._complaint(mail) for mail in plans]
            kept = [mail for mail, complaint in zip(plans, complaints, strict=True) if complaint is None]
            rows = iter(await connection.fetch(_KEEP, _batch(kept)) if kept else ())
            return [complaint or _accepted(mail, rows) for mail, complaint in zip(plans, complaints, strict=True)]
        finally:
            self._connections.append(connection)

    async def _keep_within_quotas(self, mails: Sequence[Sequence[_Plan]]) -> list[Outcome]:
        """One after the other, as each takes room from the next."""
        outcomes: list[Outcome] = []
        async with self._database.transaction() as connection:
            # Always in the same order, or two batches could each wait for the other.
            for agent_id in sorted({plan.incoming.agent.id for mail in mails for plan in mail}):
                await lock_agent(connection, agent_id)
            for mail in mails:
                complaint = await self._complaint(mail, connection)
                rows = [] if complaint else await (await connection.execute(_KEEP, _batch([mail]))).fetchall()
                outcomes.append(complaint or _accepted(mail, iter(rows)))
        return outcomes

    async def _complaint(self, plans: Sequence[_Plan], connection: Connection | None = None) -> NoRoom | None:
        """Of the whole mail: its body is kept once, and its peer hears one answer. So one agent that has room takes it
        for all of them, and a stranger to one is no reason to refuse another's owner. `connection`: with the agents'
        locks, where the mail may be kept and not answered."""
        complaint: NoRoom | None = None
        for plan in plans:
            one = plan.incoming
            try:
                if plan.judgement.state not in UNANSWERED:
                    self._quotas.conversation(one.agent.id, len(one.raw))
                    return None
                assert connection is not None
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
    known: Known
    judgement: Judgement
    row_id: uuid.UUID
    turn_id: uuid.UUID | None


def _plan(one: Incoming, known: Known, caps: RateCaps) -> _Plan:
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


def _batch(mails: Sequence[Sequence[_Plan]]) -> tuple[str, list[bytes]]:
    """What mail_keep takes: a mail for several agents has its body there once."""
    objects = []
    for place, mail in enumerate(mails, 1):
        body_id = uuid.uuid4() if len(mail) > 1 else None
        objects += [_object(plan, place, body_id) for plan in mail]
    return json.dumps(objects), [mail[0].incoming.raw for mail in mails]


def _object(plan: _Plan, place: int, body_id: uuid.UUID | None) -> dict[str, Any]:
    """`place`: of the body in the batch's; `body_id`: of one that several agents' mails share."""
    one = plan.incoming
    bounced = plan.known.ours_bounced
    return {
        "row": str(plan.row_id),
        "turn": str(plan.turn_id) if plan.turn_id else None,
        "new_thread": str(uuid.uuid4()),
        "body": str(body_id) if body_id else None,
        "raw": place,
        # A report of a delay changes nothing: the mail may yet arrive.
        "bounced": list(bounced) if bounced and gave_up(one.mail) else [],
        "bounce_reason": storable(plan.judgement.reason),
        "agent": str(one.agent.id),
        "tag": one.tag,
        "session": session_key(""),
        "ids": ids_of(one),
        "message_id": storable(one.mail.message_id),
        "in_reply_to": storable(one.mail.in_reply_to),
        "sender": storable(one.mail.from_address),
        "recipient": storable(one.recipient),
        "subject": storable(one.mail.subject),
        "state": plan.judgement.state,
        "reason": storable(plan.judgement.reason),
        "another": ANOTHER_MAIL,
        "trusted": one.proved and one.allowed,
        "authentication": storable(one.authentication),
        "envelope_from": storable(one.envelope.mail_from),
        "question": storable(one.question),
        "bounce_of": bounced[0] if bounced else None,
        "size": len(one.raw),
        "content": content_digest(one.mail),
    }


def _accepted(plans: Sequence[_Plan], rows: Iterator[TupleRow]) -> list[Accepted]:
    """`rows`: what mail_keep says of these, and then of others."""
    return [_of_agent(plan, *next(rows)) for plan in plans]


def _of_agent(plan: _Plan, copy_id: uuid.UUID | None, state: str, others_open: bool) -> Accepted:
    agent_id = plan.incoming.agent.id
    if copy_id is not None:
        return Accepted(str(copy_id), agent_id, MessageState(state), True)
    start = str(plan.turn_id) if state == MessageState.QUEUED and not others_open else ""
    return Accepted(str(plan.row_id), agent_id, MessageState(state), False, start)
