"""What is old goes, what is under way stays, and what still matters of what went is kept."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

import pytest

from tests.running import letter
from tests.store.ledgers import Ledgers, ended
from tests.store.mails import Mails
from tinyfat.domain.agents import AgentState
from tinyfat.domain.mail.message import read_mail
from tinyfat.domain.mail.threads import reply_message_id
from tinyfat.domain.turns import Attachment, TurnOutcome, TurnResult, TurnState
from tinyfat.domain.usage import Usage
from tinyfat.ports.ledger import Conflict, Outgoing
from tinyfat.ports.room import Kept
from tinyfat.ports.usage import UsageBy
from tinyfat.store.database import Database
from tinyfat.store.retention import RetentionStore
from tinyfat.store.signals import Signals
from tinyfat.store.turns import TurnStore
from tinyfat.store.usage_reports import UsageReportStore

DAYS = 30
FILE = Attachment("a.bin", "application/octet-stream", b"x" * 1000)
GONE = "select count(*) from messages where body_gone_at is not null"
BODIES = "select count(*) from message_bodies"


class OldMails(Mails):
    """Mails that are answered, and grow old on request."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.turns = TurnStore(database, Signals(database.url))
        self.old = RetentionStore(database, 3)

    async def answered(self, turn_id: str, sent: bool = True) -> str:
        """The reply's row."""
        await self.turns.offer(turn_id, 900.0)
        await self.turns.give_up(turn_id, TurnResult(TurnOutcome.ANSWERED, "Yes.", (FILE,)))
        message, raw = await self.ledger.incoming_of(turn_id)
        reply = Outgoing(
            turn_id=turn_id,
            agent_id=message.agent_id,
            thread_id=message.thread,
            message_id=reply_message_id(turn_id, "tinyfat.localhost"),
            in_reply_to=read_mail(raw).message_id,
            sender="ada@tinyfat.localhost",
            recipient=message.sender,
            subject="Re: Hello",
            raw=b"Subject: Re: Hello\r\n\r\nYes.\r\n",
        )
        row = await self.ledger.record_reply(reply, TurnState.ANSWERED)
        await self.rows("update messages set state = %s where id = %s", "sent" if sent else "deferred", row)
        return row

    async def grow_old(self, where: str = "true", days: int = DAYS + 1) -> None:
        for table, column in (("messages", "at"), ("turns", "created_at"), ("turns", "ended_at")):
            if where == "true" or table == "messages":
                await self.rows(f"update {table} set {column} = {column} - interval '{days} days' where {where}")

    async def clean(self, kept: Kept, days: int = DAYS) -> int:
        """How many batches it took."""
        batches = 1
        while await self.old.delete(kept, days):
            batches += 1
            assert batches < 100, "it never ends"
        return batches


@pytest.fixture
async def mails(database: Database) -> OldMails:
    made = OldMails(database)
    await made.agent("ada")
    return made


async def hello(mails: Mails, number: int, **more: Any) -> str:
    await mails.take(letter("Hello", message_id=f"<{number}@example.org>", **more))
    return mails.started[-1]


async def test_old_bodies_go_and_rows_threads_and_copies_stay(mails: OldMails) -> None:
    for number in range(8):
        await mails.answered(await hello(mails, number))
    await mails.grow_old()
    assert await mails.clean(Kept.BODIES) > 4, "in bounded batches"
    assert await mails.one(GONE) == 16
    assert await mails.one(BODIES) == 0
    assert await mails.one("select count(*) from turns where question <> '' or answer <> ''") == 0
    thread = await mails.one("select thread_id from messages where message_id = '<3@example.org>'")
    again = await mails.take(letter("Hello", message_id="<3@example.org>"))
    assert again == str(await mails.one("select id from messages where message_id = '<3@example.org>'"))
    later = await mails.take(letter("And?", message_id="<9@example.org>", in_reply_to="<3@example.org>"))
    assert await mails.one("select thread_id from messages where id = %s", later) == thread
    message, raw = await mails.ledger.show(again)
    assert message.body_gone_at is not None and raw == b""


async def test_a_conversation_that_goes_on_keeps_every_body(mails: OldMails) -> None:
    await mails.answered(await hello(mails, 1))
    await mails.answered(await hello(mails, 2, in_reply_to="<1@example.org>"))
    await mails.grow_old("message_id = '<1@example.org>'")
    await mails.clean(Kept.BODIES)
    assert await mails.one(GONE) == 0 and await mails.one(BODIES) == 4


@pytest.mark.parametrize("what", ["waits", "runs", "is not sent", "follows"])
async def test_nothing_under_way_is_touched(mails: OldMails, what: str) -> None:
    turn_id = await hello(mails, 1)
    if what == "runs":
        await mails.turns.offer(turn_id, 900.0)
    elif what == "is not sent":
        await mails.answered(turn_id, sent=False)
    elif what == "follows":
        await mails.answered(turn_id)
        await hello(mails, 2, in_reply_to="<1@example.org>")
    await mails.grow_old()
    before = await mails.one(BODIES)
    for kept in Kept:
        if kept is not Kept.CALLS:
            await mails.clean(kept)
    assert await mails.one(GONE) == 0 and await mails.one(BODIES) == before
    assert await mails.one("select count(*) from turns where question = ''") == 0


async def test_a_living_conversation_does_not_stop_the_pass(mails: OldMails) -> None:
    """More old mails of it than one batch looks at, and behind them one that may go."""
    for number in range(6):
        await mails.answered(await hello(mails, number, in_reply_to="<0@example.org>" if number else ""))
    await mails.answered(await hello(mails, 50))
    await mails.grow_old("message_id <> '<5@example.org>'")
    await mails.clean(Kept.BODIES)
    assert await mails.one(GONE) == 2
    await mails.grow_old("message_id = '<5@example.org>'")
    await mails.clean(Kept.BODIES)
    assert await mails.one(BODIES) == 0


async def test_a_shared_body_goes_with_the_last_that_has_it(mails: OldMails) -> None:
    await mails.agent("bob")
    await mails.take(letter("Hello", message_id="<1@example.org>"), "ada", "bob")
    for turn_id in mails.started:
        await mails.answered(turn_id)
    ours = "agent_id = (select id from agents where name = 'ada')"
    await mails.grow_old(ours)
    await mails.clean(Kept.BODIES)
    assert await mails.one(GONE) == 2 and await mails.one(BODIES) == 2
    other = await mails.one(f"select id from messages where direction = 'in' and not {ours}")
    assert b"Hello" in (await mails.ledger.show(str(other)))[1]
    await mails.grow_old(f"not {ours}")
    await mails.clean(Kept.BODIES)
    assert await mails.one(BODIES) == 0


async def test_a_strangers_mail_goes_whole_and_the_owners_side_stays(mails: OldMails) -> None:
    for number in range(7):
        await mails.stranger(number)
    young = await mails.stranger(20)
    released = await mails.stranger(21)
    await mails.ledger.release(released)
    automatic = letter("I am away", message_id="<30@example.org>")
    automatic["Auto-Submitted"] = "auto-replied"
    own = await mails.take(automatic)
    await mails.answered(await hello(mails, 40))
    await mails.grow_old(f"id <> '{young}'")
    assert await mails.clean(Kept.QUARANTINE) == 3
    left = {str(row[0]) for row in await mails.rows("select id from messages where direction = 'in'")}
    assert {young, released, own} <= left and len(left) == 4
    assert await mails.one(BODIES) == 5
    assert await mails.one("select count(*) from threads where not exists "
                           "(select from messages where thread_id = threads.id)") == 0  # fmt: skip


async def test_one_whose_body_is_gone_is_not_released(mails: OldMails) -> None:
    row = await mails.stranger(1)
    await mails.rows("update messages set body_gone_at = now()")
    with pytest.raises(Conflict, match="deleted by its age"):
        await mails.ledger.release(row)


async def test_attachments_go_once_the_reply_has_them(mails: OldMails) -> None:
    for number in range(5):
        await mails.answered(await hello(mails, number))
    under_way = await hello(mails, 9)
    await mails.turns.offer(under_way, 900.0)
    await mails.turns.give_up(under_way, TurnResult(TurnOutcome.ANSWERED, "Yes.", (FILE,)))
    await mails.grow_old()
    await mails.clean(Kept.ATTACHMENTS, 1)
    assert await mails.rows("select turn_id::text from turn_attachments") == [(under_way,)]


async def test_old_lines_of_logs_go(mails: OldMails) -> None:
    await mails.rows(
        "insert into logs (agent_id, at, source, line) select id, now() - n * interval '10 days', 'box', '' "
        "from agents, generate_series(0, 9) n"
    )
    await mails.clean(Kept.LOGS)
    assert await mails.one("select count(*) from logs") == 3


async def test_an_ended_agent_leaves_its_name(mails: OldMails) -> None:
    other = await mails.agent("bob")
    await mails.take(letter("Hello", message_id="<0@example.org>"), "ada", "bob")
    for turn_id in mails.started:
        await mails.answered(turn_id)
    for number in range(1, 6):
        await mails.answered(await hello(mails, number))
    await mails.stranger(10)
    ada = await mails.agents.find("ada")
    await mails.agents.become(ada.id, AgentState.DESTROYED)
    await mails.clean(Kept.ENDED)
    assert await mails.one("select count(*) from messages where agent_id = %s", ada.id) == 13
    await mails.rows("update agents set state_since = now() - interval '31 days' where name = 'ada'")
    await mails.clean(Kept.ENDED)
    for table in ("messages", "turns", "threads", "thread_refs"):
        assert await mails.one(f"select count(*) from {table} where agent_id = %s", ada.id) == 0
        assert await mails.one(f"select count(*) from {table} where agent_id = %s", other.id) > 0
    assert await mails.one(BODIES) == 2
    assert (await mails.agents.get(ada.id)).name == "ada"


async def test_an_ended_agent_with_a_reply_on_its_way_waits(mails: OldMails) -> None:
    await mails.answered(await hello(mails, 1), sent=False)
    await mails.rows("update agents set state = 'destroyed', state_since = now() - interval '31 days'")
    await mails.clean(Kept.ENDED)
    assert await mails.one(BODIES) == 2


async def test_audit_is_kept_long_and_not_for_ever(mails: OldMails) -> None:
    await mails.rows(
        "insert into ssh_sessions (agent_id, address, who, why, fingerprint, started_at, valid_until) "
        "select id, '', 'o', '', '', now() - n * interval '20 days', now() - n * interval '20 days' "
        "from agents, generate_series(0, 5) n"
    )
    await mails.rows(
        "insert into alarms (kind, subject, detail, ended_at) select 'site', 'x ' || n, '', "
        "case when n > 0 then now() - n * interval '20 days' end from generate_series(0, 5) n"
    )
    await mails.clean(Kept.AUDIT)
    assert await mails.one("select count(*) from ssh_sessions") == 2
    assert await mails.one("select count(*) from alarms") == 2


async def test_the_operators_own_mail_goes_as_a_strangers(mails: OldMails) -> None:
    await mails.rows(
        "insert into operator_mails "
        "(mailbox, recipient, sender, subject, message_id, client_ip, digest, size, raw, at) "
        "select 'abuse', '', '', '', '', '', n::text::bytea, 1, '', now() - n * interval '20 days' "
        "from generate_series(0, 5) n"
    )
    await mails.clean(Kept.QUARANTINE)
    assert await mails.one("select count(*) from operator_mails") == 2


async def test_what_a_machine_has_cost_is_kept_at_least_for_its_month(mails: OldMails) -> None:
    await mails.rows(
        "insert into ended_machines (id, monthly_nanodollars, since, ended_at) select gen_random_uuid(), 1, now(), "
        "now() - n * interval '20 days' from generate_series(0, 5) n"
    )
    await mails.clean(Kept.AUDIT)
    assert await mails.one("select count(*) from ended_machines") == 4


async def test_a_vendors_account_that_is_asked_no_more_is_forgotten(mails: OldMails) -> None:
    old = "extract(epoch from now() - n * interval '20 days') from generate_series(0, 5) n"
    await mails.rows(f"insert into request_budgets (account, tokens, at) select 'a ' || n, 1, {old}")
    await mails.rows(f"insert into shortages (pause, thing, account, until) select 60, 'cx23', 'a ' || n, {old}")
    await mails.clean(Kept.AUDIT)
    assert await mails.one("select count(*) from shortages") == 2
    assert await mails.one("select count(*) from request_budgets") == 2


# How the rows of each table come to an end. Enrolments are columns of their machine, signals are no rows (NOTIFY).
ENDS = {
    "what each was stays, without its words": ("agents", "messages", "threads", "turns", "thread_refs", "budgets"),
    "by its own age": (
        *("message_bodies", "turn_attachments", "logs", "calls", "ssh_sessions", "alarms", "state_moves"),
        *("relay_keys", "usage_alerts", "request_budgets", "shortages", "ended_machines", "operator_mails"),
    ),
    "a sum for a month": ("call_months",),
    "with its agent": ("agent_senders", "agent_steps", "agent_keys", "byok_keys"),
    "with what it stands for": ("machines", "addresses", "dns_names", "image_machines", "executors", "holds"),
    "with the turn": ("turn_sums",),
    "never: one a migration": ("schema_versions",),
}


async def test_of_every_table_it_is_known_how_its_rows_end(mails: OldMails) -> None:
    found = await mails.rows("select table_name from information_schema.tables where table_schema = 'public'")
    assert sorted(name for (name,) in found) == sorted(name for names in ENDS.values() for name in names)


async def test_two_processes_do_not_delete_at_once(mails: OldMails) -> None:
    for number in range(20):
        await mails.stranger(number)
    await mails.grow_old()
    both = [RetentionStore(mails.database, 3) for _ in range(4)]
    for _ in range(10):
        await asyncio.gather(*(one.delete(Kept.QUARANTINE, DAYS) for one in both))
    assert await mails.one("select count(*) from messages") == 0


async def test_a_batch_that_breaks_off_changes_nothing(mails: OldMails, monkeypatch: pytest.MonkeyPatch) -> None:
    await mails.answered(await hello(mails, 1))
    await mails.grow_old()
    monkeypatch.setattr("tinyfat.store.retention._UNUSED_BODIES", "select no_such_function(%s)")
    with pytest.raises(Exception, match="no_such_function"):
        await mails.old.delete(Kept.BODIES, DAYS)
    assert await mails.one(GONE) == 0 and await mails.one(BODIES) == 2


async def test_old_calls_become_sums_that_say_the_same(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent()
    for model in ("m1", "m2", "m1", "m1"):
        await ledgers.first.settle([ended(await ledgers.held(key, model=model), Usage(100, 10, cached=5))])
    ledgers.now = None
    recent = await ledgers.held(key)
    await ledgers.first.settle([ended(recent)])
    await ledgers.rows("alter table calls disable trigger calls_append_only")
    await ledgers.rows(
        "update calls set day = day - interval '2 years', at = at - interval '2 years' where call_id <> %s", recent
    )
    await ledgers.rows("alter table calls enable trigger calls_append_only")
    first = date.fromisoformat((await ledgers.rows("select min(day)::text from calls"))[0][0]).replace(day=1)
    reports = UsageReportStore(ledgers.database)

    async def said() -> list[object]:
        month = await reports.month(first)
        return [month, await reports.of_agent(agent_id, UsageBy.MODEL, first, 10)]

    before = await said()
    old = RetentionStore(ledgers.database, 3)
    assert await old.delete(Kept.CALLS, 400)
    assert await said() == before, "in the middle of it, too"
    assert not await old.delete(Kept.CALLS, 400)
    assert await said() == before
    assert await ledgers.rows("select call_id::text from calls") == [(recent,)]
    days = await reports.of_agent(agent_id, UsageBy.DAY, first, 10)
    assert [line.of for line in days][1:] == [f"{first:%Y-%m}"] and days[1].calls == 4
    with pytest.raises(Exception, match="append-only"):
        await ledgers.rows("delete from calls")


async def test_calls_of_this_month_and_the_last_never_become_sums(ledgers: Ledgers) -> None:
    with pytest.raises(Exception, match="not old enough"):
        await RetentionStore(ledgers.database).delete(Kept.CALLS, -40)
