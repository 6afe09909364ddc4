"""The mail turn, killed at every point there is; and any mails in any order: each is answered once, in its order."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.flows.small_world import LOOPBACK, OWNER, SmallWorld, mail, small_world
from tests.postgres import Server
from tinyfat.domain.mail.judgement import RateCaps
from tinyfat.domain.turns import TurnOutcome, TurnResult
from tinyfat.engine.steps import Steps
from tinyfat.store.database import Database

T = TypeVar("T")
STEPS = 4  # of the flow: offer, answer, reply, send; more are counted as they come


class Killed(Exception):
    """The process died here."""


class MortalSteps:
    """Remembers finished steps as the engine does. Dies once: before step `at`, or after its work and before it is
    remembered."""

    def __init__(self, at: int, after_the_work: bool) -> None:
        self._at, self._after_the_work = at, after_the_work
        self._remembered: dict[str, Any] = {}
        self.number = 0

    async def run(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        if name in self._remembered:
            known: T = self._remembered[name]
            return known
        result = await self._once(work)
        self._remembered[name] = result
        return result

    async def again(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        return await self._once(work)

    async def _once(self, work: Callable[[], Awaitable[T]]) -> T:
        self.number += 1
        dies = self.number == self._at
        if dies and not self._after_the_work:
            raise Killed
        result = await work()
        if dies:
            raise Killed
        return result


@pytest.mark.parametrize("after_the_work", [False, True])
@pytest.mark.parametrize("at", range(1, 8))
@pytest.mark.parametrize("outcome", list(TurnOutcome))
async def test_killed_at_any_step_there_is_one_turn_and_one_reply(
    database: Database, at: int, after_the_work: bool, outcome: TurnOutcome
) -> None:
    async with small_world(database) as world:
        world.box.outcome = outcome
        agent = await world.ready_agent()
        steps = MortalSteps(at, after_the_work)

        async def run_twice(_: Steps, turn_id: str) -> None:
            try:
                await world.mail_turn.run(steps, turn_id)
            except Killed:
                await world.mail_turn.run(steps, turn_id)

        world.flows.known["mail_turn"] = run_twice
        await world.send(agent, mail("one"))
        await world.flows.all_ended()
        assert len(world.box.asked) == 1
        assert len({one.raw for one in world.out.sent}) == 1, "sent again, it is the same mail"
        assert len(world.out.sent) == 1
        rows = await world.rows("select direction, state from messages where agent_id = %s order by position", agent.id)
        assert rows == [("in", outcome.value), ("out", "sent")]
        assert steps.number >= STEPS


async def test_a_flow_that_was_never_started_is_started_by_the_sweep(database: Database) -> None:
    """Killed between the commit and the flow's start."""
    async with small_world(database) as world:
        agent = await world.ready_agent()
        started = world.flows.start

        async def lost(flow: str, flow_id: str, subject: str) -> None:
            pass

        world.flows.start = lost  # type: ignore[method-assign]
        await world.send(agent, mail("one"))
        world.flows.start = started  # type: ignore[method-assign]
        await world.rows("update turns set created_at = now() - interval '1 minute' returning id")
        await world.mail_turn.sweep(10)
        await world.mail_turn.sweep(10)
        await world.flows.all_ended()
        assert len(world.box.asked) == 1 and len(world.out.sent) == 1


async def test_a_flow_that_broke_is_given_another_and_in_the_end_left_to_people(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.ready_agent()
        runs = 0

        async def breaks(steps: Steps, turn_id: str) -> None:
            nonlocal runs
            runs += 1
            raise ValueError("a bug")

        world.flows.known["mail_turn"] = breaks
        await world.send(agent, mail("one"))
        for _ in range(10):
            await asyncio.gather(*world.flows.begun.values(), return_exceptions=True)
            await world.rows("update turns set created_at = now() - interval '1 minute' returning id")
            await world.mail_turn.sweep(10)
        assert runs == 5


async def test_what_nobody_answers_in_time_is_bad_news_and_a_late_answer_changes_nothing(database: Database) -> None:
    async with small_world(database, deadline_seconds=0.2) as world:
        world.box.silent = True
        agent = await world.ready_agent()
        await world.send(agent, mail("one"))
        await world.flows.all_ended()
        (sent,) = world.out.sent
        assert b"could not be reached" in sent.raw
        ((turn_id,),) = await world.rows("select id from turns where agent_id = %s", agent.id)
        late = TurnResult(TurnOutcome.ANSWERED, text="Here I am!")
        await world.turns.answered(str(turn_id), world.orders.of(agent).id, late)
        row = await world.turns.load(str(turn_id))
        assert row.result is not None and row.result.outcome is TurnOutcome.FAILED
        assert len(world.out.sent) == 1


async def test_a_box_answers_for_its_own_agent_alone(database: Database) -> None:
    async with small_world(database, deadline_seconds=0.3) as world:
        world.box.silent = True
        agent, thief = await world.ready_agent(), await world.ready_agent()
        await world.send(agent, mail("one"))
        ((turn_id,),) = await world.rows("select id from turns where agent_id = %s", agent.id)
        stolen = world.orders.of(thief).id
        assert await world.turns.for_box(str(turn_id), stolen) is None
        await world.turns.answered(str(turn_id), stolen, TurnResult(TurnOutcome.ANSWERED, text="I am Ada"))
        await world.turns.received(str(turn_id), stolen)
        await world.flows.all_ended()
        (sent,) = world.out.sent
        assert b"I am Ada" not in sent.raw and b"could not be reached" in sent.raw


# Any mails, in any order, at once.

IDS = st.integers(0, 7)
ARRIVALS = st.lists(
    st.tuples(
        IDS,  # whose Message-ID it has
        st.lists(IDS, max_size=3),  # what it refers to
        st.sampled_from(["owner", "owner", "owner", "stranger"]),
    ),
    min_size=1,
    max_size=24,
)


@given(arrivals=ARRIVALS, at_once=st.integers(1, 8))
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
async def test_any_mails_in_any_order_are_answered_once_each_and_in_order(
    server: Server, arrivals: list[tuple[int, list[int], str]], at_once: int
) -> None:
    async with server.database() as database, small_world(database) as world:
        await _send_all(world, arrivals, at_once)
        await _settle(world)
        await _each_once_and_in_order(world, arrivals)


async def _send_all(world: SmallWorld, arrivals: list[tuple[int, list[int], str]], at_once: int) -> None:
    agent = await world.ready_agent("ada")
    slots = asyncio.Semaphore(at_once)
    kept: dict[tuple[int, str], set[str]] = defaultdict(set)

    async def arrive(number: int, references: list[int], who: str) -> None:
        sender = OWNER if who == "owner" else "stranger@elsewhere.example"
        ids = " ".join(f"<{one}@example.org>" for one in references)
        raw = mail(f"mail {number}", sender=sender, message_id=f"<{number}@example.org>", references=ids)
        async with slots:
            row = await world.send(agent, raw, replace(LOOPBACK, mail_from=sender))
        kept[number, who].add(row)

    await asyncio.gather(*(arrive(*one) for one in arrivals))
    assert all(len(rows) == 1 for rows in kept.values()), "a copy is told the row of the first"


async def _settle(world: SmallWorld) -> None:
    """What the sweeps do in a running control plane."""
    await world.flows.all_ended()
    await world.rows("update turns set created_at = now() - interval '1 minute' returning id")
    await world.mail_turn.sweep(1000)
    await world.flows.all_ended()
    await world.delivery.sweep()


async def _each_once_and_in_order(world: SmallWorld, arrivals: list[tuple[int, list[int], str]]) -> None:
    incoming = await world.rows(
        "select message_id, trusted, state, thread_id, turn_id from messages where direction = 'in' order by position"
    )
    assert {(row[0], row[1]) for row in incoming} == {(f"<{n}@example.org>", who == "owner") for n, _, who in arrivals}
    assert len(incoming) == len({(number, who) for number, _, who in arrivals})
    assert {row[2] for row in incoming if row[1]} <= {"answered"} and {row[2] for row in incoming if not row[1]} <= {
        "quarantined"
    }
    turns = [str(row[4]) for row in incoming if row[1]]
    assert sorted(turn.id for turn in world.box.asked) == sorted(turns), "each asked once"
    assert world.box.most_at_once <= 1, "one turn of a conversation at a time"
    sent = [one.raw.decode() for one in world.out.sent]
    assert sorted(raw.split("Message-ID: <turn.")[1].split("@")[0] for raw in sent) == sorted(turns), "one reply each"
    by_thread: dict[Any, list[str]] = defaultdict(list)
    for row in incoming:
        if row[1]:
            by_thread[row[3]].append(str(row[4]))
    for turns_of_thread in by_thread.values():
        asked = [turn.id for turn in world.box.asked if turn.id in turns_of_thread]
        replied = [turn for raw in sent for turn in turns_of_thread if f"<turn.{turn}@" in raw.split("\r\n\r\n")[0]
                   and f"Message-ID: <turn.{turn}@" in raw]  # fmt: skip
        assert asked == turns_of_thread, "asked in the order of arrival"
        assert replied == turns_of_thread, "answered in the order of arrival"


async def test_over_the_caps_mails_are_held_and_none_is_lost(database: Database) -> None:
    async with small_world(database, RateCaps(turns_in_thread_max=3, turns_of_sender_max=5)) as world:
        agent = await world.ready_agent()
        first = f"<{uuid.uuid4().hex}@example.org>"
        for number in range(5):
            await world.send(agent, mail(message_id=first if not number else "", references=first))
        for _ in range(5):
            await world.send(agent, mail())
        await world.flows.all_ended()
        rows = await world.rows("select state from messages where direction = 'in' order by position")
        assert [row[0] for row in rows] == ["answered"] * 3 + ["held"] * 2 + ["answered"] * 2 + ["held"] * 3
        held = await world.rows("select id from messages where state = 'held' order by position")
        for (row_id,) in held:
            released = await world.ledger.release(str(row_id))
            if released.start_turn:
                await world.mail_turn.start(released.start_turn, 1)
        await _settle(world)
        assert len(world.out.sent) == 10


@pytest.mark.parametrize(
    ("raw", "to"),
    [
        (b"From: a@example.net, b@example.net\r\nSender: b@example.net\r\n\r\nHello.\r\n", "b@example.net"),
        (mail("Away.", message_id="<1@x>").replace(b"Subject: Boats", b"Subject: Automatic reply: Boats"), OWNER),
        (mail("Done.", sender="no-reply@example.net"), "no-reply@example.net"),
        (b"From: Pat p@example.net\r\n\r\nHello.\r\n", "p@example.net"),
        (b"From: nobody\r\n\r\nHello.\r\n", OWNER),
        (b"Subject: x\r\n\r\nHello.\r\n", OWNER),
    ],
    ids=["doubtful", "automatic", "role", "unusable", "nobody", "no From"],
)
async def test_what_was_kept_from_an_answer_is_answered_once_it_is_let_out(
    database: Database, raw: bytes, to: str
) -> None:
    async with small_world(database) as world:
        agent = await world.ready_agent()
        await world.send(agent, raw)
        [(row_id, state, reason)] = await world.rows("select id, state, reason from messages where direction = 'in'")
        assert state in ("ignored", "quarantined")
        assert reason
        assert await world.rows("select count(*) from turns") == [(0,)]
        released = await world.ledger.release(str(row_id))
        await world.mail_turn.start(released.start_turn, 1)
        await world.flows.all_ended()
        assert await world.rows("select recipient from messages where direction = 'out'") == [(to,)]
