"""An automatic responder that marks nothing: stopped after a few answers, told once, released by a person."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from email import message_from_bytes, policy

import pytest

from tests.flows.small_world import DOMAIN, OWNER, SmallWorld, small_world
from tinyfat.domain.agents import Agent
from tinyfat.domain.mail.judgement import RateCaps
from tinyfat.domain.mail.rhythm import QUICK_ANSWERS_MAX, SAME_WORDS_MULTIPLE
from tinyfat.flows.loop_watch import LoopWatch
from tinyfat.ports.mail import Envelope
from tinyfat.store.database import Database
from tinyfat.store.loops import LoopStore
from tinyfat.store.mail import MailStore

CAPS = RateCaps(10_000, 10_000, QUICK_ANSWERS_MAX)
ROUNDS = 20


def letter(agent: Agent, answers: str = "", sender: str = OWNER) -> bytes:
    to_this = f"In-Reply-To: {answers}\r\nReferences: {answers}\r\n" if answers else ""
    return (
        f"From: {sender}\r\nTo: {agent.name}@{DOMAIN}\r\nSubject: away\r\n"
        f"Message-ID: <{uuid.uuid4().hex}@example.org>\r\n"
        f"{to_this}\r\nI am away.\r\n"
    ).encode()


async def loop(world: SmallWorld, agent: Agent, threaded: bool, sender: str = OWNER) -> int:
    """A responder answers each reply it gets at once. Returns how many replies it got."""
    got, answers = 0, ""
    envelope = Envelope("127.0.0.1", "peer.example", sender)
    for _ in range(ROUNDS):
        before = len(world.out.sent)
        await world.send(agent, letter(agent, answers if threaded else "", sender), envelope)
        await world.flows.all_ended()
        if len(world.out.sent) == before:
            break
        got += 1
        answers = str(message_from_bytes(world.out.sent[-1].raw, policy=policy.default)["Message-ID"])
    return got


async def held(world: SmallWorld, agent: Agent) -> Sequence[tuple[str, str]]:
    rows = await world.rows(
        "select id::text, reason from messages where agent_id = %s and state = 'held' order by position", agent.id
    )
    return [(row[0], row[1]) for row in rows]


def watch(world: SmallWorld) -> LoopWatch:
    return LoopWatch(LoopStore(world.database, DOMAIN), world.agents, world.owner_mail)


async def test_a_loop_is_held_after_a_few_and_its_owner_told_once(database: Database) -> None:
    for threaded in (True, False):
        async with small_world(database, CAPS) as world:
            agent = await world.ready_agent()
            assert await loop(world, agent, threaded) == QUICK_ANSWERS_MAX + 1
            ((row, reason),) = await held(world, agent)
            assert reason.startswith("a loop:")
            # Another process, with nothing in its memory, judges the same.
            world.intake._ledger = MailStore(database, CAPS)
            assert await loop(world, agent, threaded) == 0
            assert len(await held(world, agent)) == 2
            before = len(world.out.sent)
            assert (await watch(world).tell_owners(), await watch(world).tell_owners()) == (1, 0)
            (notice,) = world.out.sent[before:]
            parsed = message_from_bytes(notice.raw, policy=policy.default)
            assert notice.recipient == OWNER and "looks like a loop" in parsed["Subject"]
            assert parsed["Auto-Submitted"] == "auto-generated" and row[:12] in parsed.get_content()


async def test_a_released_conversation_goes_on(database: Database) -> None:
    async with small_world(database, CAPS) as world:
        agent = await world.ready_agent()
        await loop(world, agent, True)
        ((row, _),) = await held(world, agent)
        before = len(world.out.sent)
        released = await world.ledger.release(row)
        await world.mail_turn.start(released.start_turn, 1)
        await world.flows.all_ended()
        assert len(world.out.sent) == before + 1
        reply = str(message_from_bytes(world.out.sent[-1].raw, policy=policy.default)["Message-ID"])
        await world.send(agent, letter(agent, reply))
        await world.flows.all_ended()
        assert len(world.out.sent) == before + 2 and await held(world, agent) == []
        # A loop it is all the same: it is held again, after as many, and no second notice is written that day.
        assert await watch(world).tell_owners() == 0
        assert await loop(world, agent, True) <= QUICK_ANSWERS_MAX + 1
        assert len(await held(world, agent)) == 1


async def test_another_senders_mail_is_answered_meanwhile(database: Database) -> None:
    async with small_world(database, CAPS) as world:
        agent = await world.ready_agent()
        await world.agents.allow(agent.id, "@example.org")
        await loop(world, agent, False, "robot@example.org")
        assert len(await held(world, agent)) == 1
        before = len(world.out.sent)
        await world.send(agent, letter(agent))
        await world.flows.all_ended()
        assert len(world.out.sent) == before + 1
        assert await watch(world).tell_owners() == 1
        assert world.out.sent[-1].recipient == OWNER, "the owner hears of it, not the sender"


async def test_responders_that_change_their_from_are_one_loop_in_their_conversation(database: Database) -> None:
    async with small_world(database, CAPS) as world:
        agent = await world.ready_agent()
        await world.agents.allow(agent.id, "@example.org")
        got, answers = 0, ""
        for number in range(ROUNDS):
            before = len(world.out.sent)
            sender = f"robot{number}@example.org"
            await world.send(agent, letter(agent, answers, sender), Envelope("127.0.0.1", "peer.example", sender))
            await world.flows.all_ended()
            if len(world.out.sent) == before:
                break
            got += 1
            answers = str(message_from_bytes(world.out.sent[-1].raw, policy=policy.default)["Message-ID"])
        assert got == QUICK_ANSWERS_MAX + 1


async def later(world: SmallWorld, agent: Agent, minutes: int) -> None:
    """So much time passes."""
    await world.rows(
        "with m as (update messages set at = at - make_interval(mins => %s), delivered_at = delivered_at - "
        "make_interval(mins => %s) where agent_id = %s), t as (update turns set created_at = created_at - "
        "make_interval(mins => %s) where agent_id = %s) select 1", minutes, minutes, agent.id, minutes, agent.id,
    )  # fmt: skip


async def test_slow_answers_are_no_loop(database: Database) -> None:
    """The same mails, each some minutes after the reply before it."""
    async with small_world(database, CAPS) as world:
        agent = await world.ready_agent()
        for _ in range(ROUNDS):
            await later(world, agent, 3)
            await world.send(agent, letter(agent))
            await world.flows.all_ended()
        assert await held(world, agent) == [] and len(world.out.sent) == ROUNDS


NOTE = "Thank you for your mail (ticket %d). I am at sea until the end of the month and read none."
SAME_MOST = QUICK_ANSWERS_MAX * SAME_WORDS_MULTIPLE


@pytest.mark.parametrize(
    ("minutes", "words", "subject", "answered"),
    [
        (5, NOTE, "Re: away", SAME_MOST),
        (60, NOTE, "AW: away", SAME_MOST),
        (60, "Check whether the server %d is up, and tell me what its log says.", "Server", ROUNDS),  # a person's cron
        (5, "Go on, please. %d", "Re: story", ROUNDS),
    ],
)
async def test_a_slow_responder_is_known_by_its_words(
    database: Database, minutes: int, words: str, subject: str, answered: int
) -> None:
    async with small_world(database, CAPS) as world:
        agent = await world.ready_agent()
        for number in range(ROUNDS):
            quoted = f"\r\n\r\n> what the agent said, number {number} and {'x' * number}"
            raw = letter(agent).replace(b"Subject: away", f"Subject: {subject}".encode())
            await world.send(agent, raw.replace(b"I am away.", (words % number + quoted).encode()))
            await world.flows.all_ended()
            await later(world, agent, minutes)
        assert len(world.out.sent) == answered
        reasons = [reason for _, reason in await held(world, agent)]
        assert len(reasons) == ROUNDS - answered
        assert all(reason.startswith("a loop:") for reason in reasons)
        assert "said the same" in "".join(reasons[:1]) or not reasons
        assert await watch(world).tell_owners() == bool(reasons)
