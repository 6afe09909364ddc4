"""The real OpenClaw, asked as the box asks it. One gateway for the whole story: its start takes ten seconds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.relay.relays import KEY as RELAY_KEY
from tests.relay.relays import NO_CAPS, relaying
from tests.running import until
from tests.stories.runtimes import KEY, Model, Running, mail, places_in, running
from tinyfat.box.runtime import RuntimeUnavailable
from tinyfat.box.runtimes.openclaw import OpenClawRuntime
from tinyfat.domain.link import ModelAccess, RuntimeSpec
from tinyfat.domain.turns import Attachment, TurnOutcome
from tinyfat.standins.model_reading import Api

pytestmark = [pytest.mark.openclaw, pytest.mark.asyncio(loop_scope="module")]

NOTE = Attachment("note.txt", "text/plain", b"The key lies under the mat.")


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(Api.OPENAI) as model:
        yield model


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def openclaw(model: Model, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with openclaw_in(tmp_path_factory.mktemp("openclaw"), model) as run:
        yield run


@asynccontextmanager
async def openclaw_in(folder: Path, model: Model) -> AsyncIterator[Running]:
    with places_in(folder) as places:
        runtime = OpenClawRuntime(RuntimeSpec("openclaw", "ada", model.access, 0), places)
        await runtime.install(lambda _: None)
        async with running(runtime, folder / "log") as run:
            yield run


async def test_a_second_mail_is_answered_with_knowledge_of_the_first(openclaw: Running) -> None:
    first = await openclaw.runtime.answer(mail("m1", "My boat is called Heron and lies in Kiel."), False)
    second = await openclaw.runtime.answer(mail("m2", "What is my boat called?"), False)
    stranger = await openclaw.runtime.answer(mail("m3", "What is my boat called?", session="other"), False)

    assert first.text == "Hello Eva,\n\nNoted: My boat is called Heron and lies in Kiel."
    assert second.text == "Hello Eva,\n\nYou told me: 'My boat is called Heron and lies in Kiel.'"
    assert "it does not say that" in stranger.text
    assert first.received_at <= first.answered_at <= second.received_at
    assert second.usage["input"] > 1000


async def test_an_answer_is_found_again_without_asking(openclaw: Running, model: Model) -> None:
    before = len(model.bodies)

    again = await openclaw.runtime.answer(mail("m2", "What is my boat called?"), True)

    assert again.text == "Hello Eva,\n\nYou told me: 'My boat is called Heron and lies in Kiel.'"
    assert len(model.bodies) == before


async def test_a_file_comes_in_and_a_file_goes_out(openclaw: Running, model: Model) -> None:
    came_in = await openclaw.runtime.answer(mail("f1", "Where does the key lie?", NOTE, session="files"), False)
    body = "model: write out/report.txt All is well then attach"
    by_agent = await openclaw.runtime.answer(mail("f3", body, session="files"), False)
    by_chat = await openclaw.runtime.answer(mail("f4", body, NOTE, session="files"), False)
    before = len(model.bodies)
    found_again = await openclaw.runtime.answer(mail("f4", body, NOTE, session="files"), True)

    assert "I have your attachments: note.txt" in came_in.text
    assert "You told me: 'The key lies under the mat.'" in came_in.text
    for result in (by_agent, by_chat, found_again):
        assert result.text == "I wrote out/report.txt."
        assert result.attachments == (Attachment("report.txt", "text/plain", b"All is well"),)
    assert len(model.bodies) == before


async def test_a_file_outside_the_workspace_does_not_go_out(openclaw: Running) -> None:
    workspace = openclaw.log.parent / "workspace"
    (workspace / "out" / "link.json").symlink_to(openclaw.log.parent / "state" / "openclaw.json")
    body = "model: say Look\\nMEDIA:../state/openclaw.json\\nMEDIA:./out/link.json"
    result = await openclaw.runtime.answer(mail("o1", body, session="out"), False)

    assert result.text.startswith("Look\n\n[Not attached: ") and result.attachments == ()
    assert "link.json (it is outside the workspace)" in result.text
    assert "'./out/link.json' left out: it is outside the workspace" in result.detail


async def test_silence_is_no_failure_and_a_marker_never_leaves(openclaw: Running) -> None:
    silent = await openclaw.runtime.answer(mail("s1", "model: say NO_REPLY", session="silent"), False)
    with_file = await openclaw.runtime.answer(mail("s2", "model: say NO_REPLY", NOTE, session="silent-2"), False)
    under = await openclaw.runtime.answer(mail("s3", "model: say It is done.\\n\\nNO_REPLY", session="silent-3"), False)
    # OpenClaw asks its model once more where a marker was all; the stand-in answers that with words.
    assert silent.outcome is not TurnOutcome.FAILED, silent
    assert under.outcome is TurnOutcome.ANSWERED and under.text == "It is done.", under
    for result in (silent, with_file):
        assert "NO_REPLY" not in result.text, result


async def test_a_file_that_is_not_there_is_named(openclaw: Running) -> None:
    body = "model: say Here it is.\\nMEDIA:./out/gone.pdf"
    result = await openclaw.runtime.answer(mail("g1", body, session="gone"), False)
    assert "gone.pdf (it is not there)" in result.text, result


async def test_a_mail_is_no_command(openclaw: Running, model: Model) -> None:
    for number, note in enumerate(((), (NOTE,))):
        turn = mail(f"c{number}", "/reset\n/model nothing/at-all\nmodel: say still here", *note, session=f"c{number}")
        result = await openclaw.runtime.answer(turn, False)
        assert result.text == "still here"


async def test_threads_are_answered_side_by_side(openclaw: Running) -> None:
    count = openclaw.runtime.turns_at_once
    turns = [mail(f"p{n}", f"model: slow 1\nmodel: say number {n}", session=f"p{n}") for n in range(count)]

    results = await asyncio.gather(*(openclaw.runtime.answer(turn, False) for turn in turns))

    assert [result.text for result in results] == [f"number {n}" for n in range(count)]
    assert max(result.received_at for result in results) < min(result.answered_at for result in results)


async def test_each_model_call_says_which_threads_it_is(openclaw: Running, model: Model) -> None:
    """A sub-agent's call is that of the thread that began it."""
    before = len(model.sessions)
    spawn = 'model: call tool_call {"id": "sessions_spawn", "args": {"task": "model: say child"}}'
    turns = [mail("w1", "model: say one", session="Whose.One@example.org"), mail("w2", spawn, session="whose-two")]
    running = [turn.session for turn in turns]
    await asyncio.gather(*(openclaw.runtime.answer(turn, False) for turn in turns))

    async def of_which() -> Counter[str]:
        return Counter([await openclaw.runtime.session_of(said, running) for said in model.sessions[before:]])

    async def child_was_heard() -> bool:
        return (await of_which())[running[1]] >= 4  # the tool's call, what it gave, the child, what the child said

    await until(child_was_heard, 30.0, "the sub-agent asks the model, and its answer is read")
    found = await of_which()
    assert found[running[0]] == 1 and set(found) == set(running), found
    assert len(set(model.sessions[before:])) == 3


async def test_a_model_that_refuses_is_said_once(openclaw: Running, model: Model) -> None:
    turn = mail("e1", "model: status 400", session="refused")

    first = await openclaw.runtime.answer(turn, False)
    before = len(model.bodies)
    again = await openclaw.runtime.answer(turn, True)

    assert (first.outcome, again.outcome) == (TurnOutcome.FAILED, TurnOutcome.FAILED)
    assert first.failure == again.failure is not None
    assert len(model.bodies) == before


async def test_killed_in_the_middle_it_answers_once(openclaw: Running, model: Model) -> None:
    plain = mail("k1", "model: slow 2\nmodel: say I was killed once", session="killed")
    with_file = mail("k2", "model: slow 2\nmodel: say I was killed too", NOTE, session="killed-too")
    unasked = mail("k3", "model: say I came too late", session="killed-early")
    turns = (plain, with_file, unasked)
    asking = [asyncio.ensure_future(openclaw.runtime.answer(turn, False)) for turn in (plain, with_file)]

    async def both_asked() -> bool:
        return model.asked("killed once") == 1 and model.asked("killed too") == 1

    await until(both_asked, 20.0, "the model was asked for both turns")
    asking.append(asyncio.ensure_future(openclaw.runtime.answer(unasked, False)))
    await asyncio.sleep(0)
    await openclaw.kill()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RuntimeUnavailable] * 3

    await openclaw.start()
    answers = await asyncio.gather(*(openclaw.runtime.answer(turn, True) for turn in turns))
    again = await openclaw.runtime.answer(plain, True)

    assert [answer.text for answer in answers] == ["I was killed once", "I was killed too", "I came too late"]
    assert again == answers[0]
    # Once before it was killed, and once more: the gateway takes an interrupted turn up again by itself.
    assert (model.asked("killed once"), model.asked("killed too"), model.asked("too late")) == (2, 2, 1)


async def test_it_knows_the_first_mail_after_all_that_and_wrote_no_key_down(openclaw: Running) -> None:
    result = await openclaw.runtime.answer(mail("m9", "Where does my boat lie?"), False)

    assert "lies in Kiel" in result.text
    assert await openclaw.stop() == 0
    state = openclaw.log.parent / "state"
    holding = [path for path in state.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert holding == []
    assert KEY not in openclaw.log.read_text()


async def test_a_model_of_the_other_kind_is_asked_in_its_own_way(tmp_path: Path) -> None:
    with Model(Api.ANTHROPIC) as model:
        async with openclaw_in(tmp_path, model) as run:
            first = await run.runtime.answer(mail("m1", "My boat is called Heron."), False)
            second = await run.runtime.answer(mail("m2", "What is my boat called?"), False)
            written = await run.runtime.answer(mail("m3", "model: write out/a.txt Well then attach"), False)

    assert first.text == "Hello Eva,\n\nNoted: My boat is called Heron."
    assert second.text == "Hello Eva,\n\nYou told me: 'My boat is called Heron.'"
    assert written.attachments == (Attachment("a.txt", "text/plain", b"Well"),)


@pytest.mark.parametrize("api", list(Api))
async def test_over_a_cap_the_owner_reads_which_and_afterwards_it_goes_on(api: Api, tmp_path: Path) -> None:
    """Through the relay, with OpenClaw's own tools, streamed: an error would disable its provider for minutes."""
    async with relaying(caps=replace(NO_CAPS, month=0)) as relay:
        path = "/v1" if api is Api.OPENAI else ""
        access = ModelAccess(api.value, relay.url + path, RELAY_KEY, "main")
        with places_in(tmp_path) as places:
            runtime = OpenClawRuntime(RuntimeSpec("openclaw", "ada", access, 0), places)
            await runtime.install(lambda _: None)
            async with running(runtime, tmp_path / "log"):
                for number in range(2):
                    refused = await runtime.answer(mail(f"r{number}", "model: say I thought", session="capped"), False)
                    assert refused.outcome is TurnOutcome.ANSWERED, refused
                    assert "ada has reached what it may spend this month" in refused.text
                assert relay.ledger.calls == [] and relay.standin.requests == []
                relay.ledger.cap("ada", NO_CAPS)
                allowed = await runtime.answer(mail("r9", "model: say I thought", session="capped"), False)
                assert allowed.text == "I thought"
                [written] = await relay.ended()
                assert written.settlement.outcome == "ok" and not written.settlement.usage.estimated
                assert relay.standin.requests[0]["tools"] and relay.standin.requests[0]["stream"] is True
