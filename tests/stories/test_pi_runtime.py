"""The real pi, asked as the box asks it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import until
from tests.stories.runtimes import KEY, Model, mail, places_in
from tinyfat.box.process_table import everyone
from tinyfat.box.runtime import RuntimeUnavailable
from tinyfat.box.runtimes.pi import PiRuntime
from tinyfat.domain.link import RuntimeSpec
from tinyfat.domain.turns import Attachment, TurnOutcome
from tinyfat.standins.model_reading import Api

pytestmark = pytest.mark.pi

NOTE = Attachment("note.txt", "text/plain", b"The key lies under the mat.")
ARCHIVE = Attachment("old.zip", "application/zip", b"PK\x05\x06" + bytes(18))


@pytest.fixture(params=[Api.OPENAI, Api.ANTHROPIC], ids=lambda api: str(api.value))
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with Model(request.param) as model:
        yield model


@pytest.fixture
async def pi(model: Model, tmp_path: Path) -> PiRuntime:
    with places_in(tmp_path) as places:
        runtime = PiRuntime(RuntimeSpec("pi", "ada", model.access, 2**30), places)
        await runtime.install(lambda _: None)
        assert await runtime.ready()
        return runtime


async def test_a_second_mail_is_answered_with_knowledge_of_the_first(pi: PiRuntime) -> None:
    first = await pi.answer(mail("m1", "My boat is called Heron and lies in Kiel."), False)
    second = await pi.answer(mail("m2", "What is my boat called?"), False)
    stranger = await pi.answer(mail("m3", "What is my boat called?", session="other"), False)

    assert first.text == "Hello Eva,\n\nNoted: My boat is called Heron and lies in Kiel."
    assert second.text == "Hello Eva,\n\nYou told me: 'My boat is called Heron and lies in Kiel.'"
    assert "it does not say that" in stranger.text
    assert first.received_at <= first.answered_at <= second.received_at


async def test_files_come_in_and_a_file_goes_out(pi: PiRuntime, tmp_path: Path) -> None:
    came_in = await pi.answer(mail("f1", "Here are two files.", NOTE, ARCHIVE), False)
    asked = await pi.answer(mail("f2", "Where does the key lie?"), False)
    written = await pi.answer(mail("f3", "model: write out/report.txt All is well then attach"), False)
    outside = await pi.answer(mail("f4", "model: say MEDIA:../state/prompt.md"), False)

    assert "note.txt" in came_in.text
    assert "You told me: 'The key lies under the mat.'" in asked.text
    (saved,) = tmp_path.glob("workspace/inbox/*/2-old.zip")
    assert saved.read_bytes() == ARCHIVE.content
    assert written.attachments == (Attachment("report.txt", "text/plain", b"All is well"),)
    assert outside.attachments == ()
    assert "outside the workspace" in outside.detail


async def test_an_answer_and_a_refusal_are_found_again_without_asking(pi: PiRuntime, model: Model) -> None:
    turns = [mail("a1", "model: say once"), mail("a2", "model: status 400")]
    first = [await pi.answer(turn, False) for turn in turns]
    before = len(model.bodies)

    again = [await pi.answer(turn, True) for turn in turns]

    assert again == first
    assert [result.outcome for result in first] == [TurnOutcome.ANSWERED, TurnOutcome.FAILED]
    assert len(model.bodies) == before


async def test_past_its_deadline_pi_is_killed_and_the_question_put_once_more(pi: PiRuntime, model: Model) -> None:
    with pytest.raises(RuntimeUnavailable, match="no answer within"):
        await pi.answer(mail("d1", "model: slow 30\nmodel: say late", seconds=2.0), False)
    assert len(model.bodies) == 1
    assert running_pi(pi) == []

    result = await pi.answer(mail("d1", "model: say late"), True)

    assert result.text == "late"
    assert [len(user_messages(body)) for body in model.bodies][-1] == 1  # the cut-off question is gone


async def test_one_thread_has_one_writer_and_each_call_says_which_thread_it_is(pi: PiRuntime, model: Model) -> None:
    turns = [mail(f"w{number}", f"model: say number {number}") for number in range(3)]

    results = await asyncio.gather(*(pi.answer(turn, False) for turn in turns))

    assert [result.text for result in results] == ["number 0", "number 1", "number 2"]
    assert [await pi.session_of(said, ["email:other", turns[0].session]) for said in set(model.sessions)] == [
        turns[0].session
    ]
    assert await pi.session_of("", [turns[0].session]) == await pi.session_of(model.sessions[0], ["email:other"]) == ""
    last = await pi.answer(mail("w9", "model: say all there"), False)
    assert last.text == "all there"


async def test_a_box_killed_in_the_middle_finds_the_answer_of_its_orphan(pi: PiRuntime, model: Model) -> None:
    """The asking process is killed; pi goes on, holds its session, and what it writes is the answer."""
    turn = mail("k1", "model: slow 1.5\nmodel: say from an orphan")
    asking = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ASK, str(pi._places.state.parent), str(model.api.value), model.access.url, turn.text),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    async def asked() -> bool:
        return model.asked("orphan") == 1

    await until(asked, 20.0, "the model was asked")
    asking.kill()
    await asking.wait()
    assert len(running_pi(pi)) == 1

    result = await pi.answer(turn, True)

    assert result.text == "from an orphan"
    assert model.asked("orphan") == 1


async def test_killed_in_the_middle_pi_is_asked_once_more(pi: PiRuntime, model: Model) -> None:
    turn = mail("k2", "model: slow 1.5\nmodel: say after the kill")
    asking = asyncio.ensure_future(pi.answer(turn, False))

    async def asked() -> bool:
        return model.asked("after the kill") == 1

    await until(asked, 20.0, "the model was asked")
    for pid in running_pi(pi):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(RuntimeUnavailable, match="without an answer"):
        await asking

    result = await pi.answer(turn, True)

    assert result.text == "after the kill"
    assert model.asked("after the kill") == 2
    assert len(user_messages(model.bodies[-1])) == 1


async def test_no_key_and_no_mail_is_written_where_others_look(pi: PiRuntime, model: Model, tmp_path: Path) -> None:
    asking = asyncio.ensure_future(pi.answer(mail("s1", "model: slow 0.5\nmodel: say private words"), False))

    shown: set[bytes] = set()

    async def ended() -> bool:
        for pid in running_pi(pi):
            with contextlib.suppress(OSError):
                shown.add(Path(f"/proc/{pid}/cmdline").read_bytes())
        return asking.done()

    await until(ended, 20.0, "pi answered")
    assert (await asking).text == "private words"
    assert any(b"cli.js" in line for line in shown)
    assert not any(b"private" in line or KEY.encode() in line for line in shown)

    assert [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()] == []


ASK = """
import asyncio, sys
from pathlib import Path
from tests.stories.runtimes import KEY
from tinyfat.box.runtime import Places
from tinyfat.box.runtimes.install import shared_default
from tinyfat.box.runtimes.pi import PiRuntime
from tinyfat.domain.link import ModelAccess, RuntimeSpec
from tinyfat.domain.turns import Turn
import os
folder, api, url, text = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
places = Places(folder / "state", folder / "workspace", shared_default(os.environ))
runtime = PiRuntime(RuntimeSpec("pi", "ada", ModelAccess(api, url, KEY, "main"), 2**30), places)
asyncio.run(runtime.answer(Turn("k1", "email:boat", text, 60.0), False))
"""


def running_pi(pi: PiRuntime) -> list[int]:
    """The processes that work in this agent's workspace (pi renames itself: its command line says nothing)."""
    found = []
    for seen in everyone():
        try:
            folder = Path(f"/proc/{seen.pid}/cwd").readlink()
        except OSError:
            continue
        if folder == pi._places.workspace:
            found.append(seen.pid)
    return found


def user_messages(body: object) -> list[object]:
    assert isinstance(body, dict)
    return [message for message in body["messages"] if message["role"] == "user"]
