"""What the ledger knows about mails that are being accepted, asked for all of them at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import TupleRow

from tinyfat.domain.mail.judgement import RateCaps
from tinyfat.domain.mail.rhythm import LOOKED_BACK_SECONDS, WORDS_CHARS, Exchange, Rhythm, own_words
from tinyfat.domain.mail.threads import thread_candidates
from tinyfat.ports.ledger import Incoming
from tinyfat.recipes.reply_mail import is_reply_subject
from tinyfat.store.database import OneConnection, storable

RATE_WINDOW_SECONDS = 3600
EXCHANGES_LOOKED_AT = 3  # times as many as the quick answers in a row that are answered: more than any pace asks for

# What the judgement asks of the ledger: how many turns the mail's conversation and its sender had of late, and which
# mails of ours it is a report about. What a mail answers decides the conversation (RFC 5322 3.6.4), whatever became of
# the subject; then the tag. Read without a lock: a cap may be passed by the mails of one moment.
_KNOWN = """
select known.* from rows from (
    jsonb_to_recordset(%s::jsonb) as (
        agent uuid, ids text[], tag text, sender text, "window" float, looked_back float, words text, words_chars int,
        looked int, reported text[], bounced uuid[], report boolean
    )
) with ordinality mail, lateral (
    with found as (
        select coalesce(
            (select thread_id from thread_refs where agent_id = mail.agent and message_id = any(mail.ids)
             order by array_position(mail.ids, message_id) limit 1),
            (select id from threads where agent_id = mail.agent and tag = nullif(mail.tag, ''))
        ) as thread
    )
    select
        (select count(*) from messages where thread_id = found.thread and direction = 'in' and turn_id is not null
            and at > now() - make_interval(secs => mail."window")),
        (select count(*) from messages where agent_id = mail.agent and sender = mail.sender and direction = 'in'
            and turn_id is not null and at > now() - make_interval(secs => mail."window")),
        array(select id::text from messages where agent_id = mail.agent and direction = 'out'
            and (message_id = any(mail.reported)
                or (id = any(mail.bounced) and (mail.report or recipient <> mail.sender)))),
        exists(select from messages where agent_id = mail.agent and id = any(mail.bounced) and recipient = mail.sender
            and not mail.report),
        (select json_agg(json_build_array(
            extract(epoch from now() - one.at), extract(epoch from now() - reply.left_at),
            case when turn.created_at > one.at then extract(epoch from now() - turn.created_at) end,
            -- As domain/mail/rhythm.own_words does.
            case when mail.words = '' then false else mail.words = regexp_replace(split_part(left(
                substr(turn.question, position(E'\\n\\n' in turn.question) + 2), mail.words_chars
            ), E'\\n>', 1), '[0-9 \\t\\n]+', '', 'g') end))
         from (
            (select id, turn_id, at from messages where agent_id = mail.agent and sender = mail.sender
                and direction = 'in' and turn_id is not null and at > now() - make_interval(secs => mail.looked_back)
                order by at desc limit mail.looked)
            union
            (select id, turn_id, at from messages where thread_id = found.thread and direction = 'in'
                and turn_id is not null and at > now() - make_interval(secs => mail.looked_back)
                order by at desc limit mail.looked)
         ) one
         join turns turn on turn.id = one.turn_id
         left join lateral (
            -- A reply may be answered before the note that it left is committed.
            select case when delivered_at > at + interval '30 seconds' then delivered_at
                when delivered_at is not null or leased_until > now() then at end as left_at
            from messages where turn_id = one.turn_id and direction = 'out' limit 1
         ) reply on true where mail.looked > 0),
        (select extract(epoch from now() - max(at)) from messages where thread_id = found.thread and direction = 'in'
            and state = 'held' and reason like 'a loop:%%'),
        (select extract(epoch from now() - max(at)) from messages where agent_id = mail.agent and sender = mail.sender
            and state = 'held' and reason like 'a loop:%%')
    from found
) known order by mail.ordinality
"""


@dataclass(frozen=True, slots=True)
class Known:
    turns_in_thread: int
    turns_of_sender: int
    ours_bounced: Sequence[str]  # rows of our messages that this is a report about
    from_its_reader: bool  # it came back from the very address the reply went to, and is no report: an absence note
    rhythm: Rhythm


async def ask_known(connection: OneConnection, mails: Sequence[Incoming], caps: RateCaps) -> list[Known]:
    """In their order. Raises StoreUnavailable."""
    rows = await connection.fetch(_KNOWN, [json.dumps([_asked(one, caps) for one in mails])])
    return [_known(row) for row in rows]


def ids_of(one: Incoming) -> list[str]:
    """Its own first: a copy of a known mail belongs where that one is."""
    return [storable(i) for i in dict.fromkeys([one.mail.message_id, *thread_candidates(one.mail)])]


def _asked(one: Incoming, caps: RateCaps) -> dict[str, Any]:
    return {
        "agent": str(one.agent.id),
        "ids": ids_of(one),
        "tag": one.tag,
        "sender": storable(one.mail.from_address),
        "window": RATE_WINDOW_SECONDS,
        "looked_back": LOOKED_BACK_SECONDS,
        "words": storable(own_words(one.question, _is_answer(one))),
        "words_chars": WORDS_CHARS,
        "looked": caps.quick_answers_max * EXCHANGES_LOOKED_AT if one.proved and one.allowed else 0,
        "reported": _reported(one),
        "bounced": [one.bounced_message] if one.bounced_message else [],
        "report": one.mail.report is not None,
    }


def _known(row: TupleRow) -> Known:
    in_thread_turns, of_sender_turns, bounced, from_its_reader, exchanges, in_thread, of_sender = row
    rhythm = Rhythm([Exchange(*one) for one in exchanges or ()], _float(in_thread), _float(of_sender))
    return Known(in_thread_turns, of_sender_turns, bounced, from_its_reader, rhythm)


def _is_answer(one: Incoming) -> bool:
    return bool(one.mail.in_reply_to or one.mail.references or is_reply_subject(one.mail.subject))


def _float(seconds: Any) -> float | None:
    return None if seconds is None else float(seconds)


def _reported(one: Incoming) -> list[str]:
    """The Message-IDs a report names. Only where it comes from a mail system, with nobody to answer to."""
    if one.mail.report is None or not one.mail.report.of_delivery or one.envelope.mail_from:
        return []
    return [storable(i) for i in one.mail.report.original_message_ids]
