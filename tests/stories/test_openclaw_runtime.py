"""The real OpenClaw, asked as the box asks it. One gateway for the whole story: its start takes ten seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.running import until
from tests.stories.runtimes import KEY, Model, Running, mail, places_in, running
from tinyfat.box.runtime import RuntimeUnavailable
from tinyfat.box.runtimes.openclaw import OpenClawRuntime
from tinyfat.domain.link import RuntimeSpec
from tinyfat.domain.turns import Attachment, TurnOutcome
from tinyfat.standins.model_reading import Api

pytestmark = [pytest.mark.openclaw, pytest.mark.asyncio(loop_scope="module")]

NOTE = Attachment("note.txt", "text/plain", b"The key lies under the mat.")


@pytest.fixture(scope="module", params=[Api.OPENAI, Api.ANTHROPIC], ids=lambda api: str(api.value))
def model(request: pytest.FixtureRequest) -> AsyncIterator[Model]:
    with Model(request.param) as model:
        yield model


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def openclaw(model: Model, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("openclaw")
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
    came_in = await openclaw.runtime.answer(mail("f1", "Here is a note.", NOTE, session="files"), False)
    asked = await openclaw.runtime.answer(mail("f2", "Where does the key lie?", session="files"), False)
    body = "model: write out/report.txt All is well then attach"
    by_agent = await openclaw.runtime.answer(mail("f3", body, session="files"), False)
    by_chat = await openclaw.runtime.answer(mail("f4", body, NOTE, session="files"), False)
    before = len(model.bodies)
    found_again = await openclaw.runtime.answer(mail("f4", body, NOTE, session="files"), True)

    assert "I have your attachments: note.txt" in came_in.text
    assert "You told me: 'The key lies under the mat.'" in asked.text
    for result in (by_agent, by_chat, found_again):
        assert result.text == "I wrote out/report.txt."
        assert result.attachments == (Attachment("report.txt", "text/plain", b"All is well"),)
    assert len(model.bodies) == before


async def test_a_file_outside_the_workspace_does_not_go_out(openclaw: Running) -> None:
    result = await openclaw.runtime.answer(mail("o1", "model: say MEDIA:../state/openclaw.json", session="out"), False)

    assert result.attachments == ()
    assert "outside the workspace" in result.detail


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


async def test_a_model_that_refuses_is_said_once(openclaw: Running, model: Model) -> None:
    turn = mail("e1", "model: status 400", session="refused")

    first = await openclaw.runtime.answer(turn, False)
    before = len(model.bodies)
    again = await openclaw.runtime.answer(turn, True)

    assert (first.outcome, again.outcome) == (TurnOutcome.FAILED, TurnOutcome.FAILED)
    assert first.failure == again.failure != ""
    assert len(model.bodies) == before


async def test_killed_in_the_middle_it_answers_once(openclaw: Running, model: Model) -> None:
    plain = mail("k1", "model: slow 2\nmodel: say I was killed once", session="killed")
    with_file = mail("k2", "model: slow 2\nmodel: say I was killed too", NOTE, session="killed-too")
    asking = [asyncio.ensure_future(openclaw.runtime.answer(turn, False)) for turn in (plain, with_file)]

    async def both_asked() -> bool:
        return model.asked("killed once") == 1 and model.asked("killed too") == 1

    await until(both_asked, 20.0, "the model was asked for both turns")
    await openclaw.kill()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RuntimeUnavailable] * 2

    await openclaw.start()
    answers = await asyncio.gather(*(openclaw.runtime.answer(turn, True) for turn in (plain, with_file)))
    again = await openclaw.runtime.answer(plain, True)

    assert [answer.text for answer in answers] == ["I was killed once", "I was killed too"]
    assert again == answers[0]
    # Once before it was killed, and once more: the gateway takes an interrupted turn up again by itself.
    assert (model.asked("killed once"), model.asked("killed too")) == (2, 2)


async def test_killed_before_the_model_was_asked_it_answers_once(openclaw: Running, model: Model) -> None:
    turn = mail("q1", "model: say asked at last", session="early")
    asking = asyncio.ensure_future(openclaw.runtime.answer(turn, False))
    await asyncio.sleep(0)
    await openclaw.kill()
    with pytest.raises(RuntimeUnavailable):
        await asking

    await openclaw.start()
    result = await openclaw.runtime.answer(turn, True)

    assert result.text == "asked at last"
    assert model.asked("asked at last") == 1


async def test_it_knows_the_first_mail_after_all_that_and_wrote_no_key_down(openclaw: Running) -> None:
    result = await openclaw.runtime.answer(mail("m9", "Where does my boat lie?"), False)

    assert "lies in Kiel" in result.text
    assert await openclaw.stop() == 0
    state = openclaw.log.parent / "state"
    holding = [path for path in state.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert holding == []
    assert KEY not in openclaw.log.read_text()
