"""What cannot be answered is told to the sender: once, in plain words."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.box_processes import box_process
from tests.mailbox import Received
from tests.running import letter, until
from tests.stories.conftest import TURN_SECONDS
from tests.stories.town import House, new_id

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


@dataclass(frozen=True)
class Asked:
    """An agent of the hasty TinyFat, for one test alone: the hasty one's cap on one sender is low."""

    hasty: House
    name: str
    machine: Path

    async def ask(self, text: str, **more: str) -> str:
        message_id = new_id()
        await self.hasty.tinyfat.send(letter(text, to=f"{self.name}@hasty.localhost", message_id=message_id, **more))
        return message_id

    async def reply_to(self, message_id: str) -> Received:
        return await self.hasty.office.reply_to(message_id)

    async def is_answered(self) -> None:
        """A new mail is, after whatever was done to the agent."""
        await self.reply_to(await self.ask("Are you there?"))

    async def had_one_reply(self, message_id: str) -> None:
        assert len(self.hasty.office.replies_to(message_id)) == 1

    async def shown(self, message_id: str) -> dict[str, Any]:
        row = await self.hasty.operator.incoming(self.name, message_id)
        shown: dict[str, Any] = await self.hasty.operator.ask("GET", f"mail/{row['id']}")
        return shown


async def asked_agent(hasty: House, name: str) -> Asked:
    agent = await hasty.operator.make_agent(name)
    return Asked(hasty, name, hasty.tinyfat.home / "machines" / agent["machine"]["id"])


@pytest_asyncio.fixture(loop_scope="session")
async def ned(hasty: House, request: pytest.FixtureRequest) -> Asked:
    return await asked_agent(hasty, f"ned-{sha256(request.node.name.encode()).hexdigest()[:8]}")


async def test_a_refusal_of_the_model_is_told_once_and_shown(ned: Asked) -> None:
    message_id = await ned.ask("echo: fail")
    reply = await ned.reply_to(message_id)
    assert "could not answer this mail" in reply.text and "Traceback" not in reply.text
    shown = await ned.shown(message_id)
    assert (shown["state"], shown["turn"]["outcome"]) == ("failed", "failed") and "refused" in shown["turn"]["detail"]
    await ned.is_answered()
    await ned.had_one_reply(message_id)


async def test_an_agent_that_stays_silent_is_no_failure_and_is_told(ned: Asked) -> None:
    message_id = await ned.ask("echo: say NO_REPLY")
    reply = await ned.reply_to(message_id)
    assert "decided that it needs no answer" in reply.text
    assert "NO_REPLY" not in reply.text.partition("wrote:")[0] and "could not" not in reply.text
    assert (await ned.shown(message_id))["state"] == "silent"


async def test_answering_the_bad_news_tries_again(ned: Asked) -> None:
    news = await ned.reply_to(await ned.ask("echo: fail"))
    reply = await ned.reply_to(await ned.ask("Please try again.", in_reply_to=news.message_id))
    assert "could not answer" not in reply.text and "turn 2 of this conversation" in reply.text


async def test_a_runtime_that_dies_once_answers_after_all(ned: Asked) -> None:
    message_id = await ned.ask("echo: crash\nGood morning.")
    assert "Good morning." in (await ned.reply_to(message_id)).text
    await ned.is_answered()
    await ned.had_one_reply(message_id)


async def a_turn_that_never_ends_is_given_up_and_others_are_not_kept(ned: Asked) -> None:
    hanging = await ned.ask("echo: hang")
    await ned.is_answered()
    assert "could not" in (await ned.reply_to(hanging)).text
    await ned.is_answered()
    await ned.had_one_reply(hanging)


async def a_box_that_is_silent_past_the_deadline_is_bad_news_and_its_late_answer_is_none(ned: Asked) -> None:
    box = box_process(ned.hasty.tinyfat.home, ned.machine.name).pid
    os.kill(box, signal.SIGSTOP)
    try:
        message_id = await ned.ask("Good evening.")
        news = await ned.reply_to(message_id)
        assert "could not be reached" in news.text
        assert f"tinyfat agent show {ned.name}" in (await ned.shown(message_id))["turn"]["detail"]
    finally:
        os.kill(box, signal.SIGCONT)
    await ned.is_answered()
    assert (await ned.shown(message_id))["state"] == "failed"
    await ned.had_one_reply(message_id)


async def an_answer_that_comes_after_the_deadline_is_none(ned: Asked) -> None:
    message_id = await ned.ask(f"echo: sleep {TURN_SECONDS - 0.5}\nI am slow.")
    box = box_process(ned.hasty.tinyfat.home, ned.machine.name).pid

    async def began() -> bool:
        return _events(ned.machine, "received") == 2  # the probe's and this

    await until(began, 20.0, "the runtime has the question")
    os.kill(box, signal.SIGSTOP)
    try:
        assert "could not be reached" in (await ned.reply_to(message_id)).text
        assert _events(ned.machine, "answered") == 2  # in the runtime; the box is about to hear of it
    finally:
        os.kill(box, signal.SIGCONT)
    await ned.is_answered()
    shown = await ned.shown(message_id)
    assert (shown["state"], shown["turn"]["outcome"]) == ("failed", "failed")
    await ned.had_one_reply(message_id)


async def test_the_deadline(hasty: House) -> None:
    """Three stories told at the same time, each with an agent of its own: all of them wait for it."""
    stories = (
        a_turn_that_never_ends_is_given_up_and_others_are_not_kept,
        a_box_that_is_silent_past_the_deadline_is_bad_news_and_its_late_answer_is_none,
        an_answer_that_comes_after_the_deadline_is_none,
    )
    async with asyncio.TaskGroup() as group:
        for number, story in enumerate(stories):
            group.create_task(story(await asked_agent(hasty, f"nora-{number}")), name=story.__name__)


def _events(machine: Path, event: str) -> int:
    return (machine / "state" / "turns.log").read_text().count(f'"event": "{event}"')
