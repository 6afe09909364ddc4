"""The desk of turns, with a runtime whose every answer a test decides."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.box.plane import until
from tinyfat.box.desk import TurnDesk
from tinyfat.box.journal import Journal
from tinyfat.box.logbook import Logbook
from tinyfat.box.outbox import Outbox
from tinyfat.box.pace import Pace
from tinyfat.box.runtime import Command, Progress, RuntimeUnavailable
from tinyfat.box.workplace import Workplace
from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.link import TurnAnswer, TurnReceived
from tinyfat.domain.link_json import decode
from tinyfat.domain.turns import Attachment, Turn, TurnOutcome, TurnResult

PACE = Pace(ask_pause_first=0.01, ask_pause_max=0.02, ask_grace=0.1, limit_grace=0.05)
SECRET = "model-key-1234567"


class Answering:
    """`answers` are given in turn; an exception is raised, and what is awaitable is awaited first."""

    version = "1"
    turns_at_once = 2

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.answers: list[TurnResult | Exception] = []
        self.open = asyncio.Event()
        self.open.set()
        self.cancelled: list[str] = []

    async def install(self, progress: Progress) -> None: ...

    def command(self) -> Command | None:
        return None

    async def live(self) -> bool:
        return True

    async def ready(self) -> bool:
        return True

    async def session_of(self, said: str, running: Sequence[str]) -> str:
        return next((session for session in running if said == f"id of {session}"), "")

    async def answer(self, turn: Turn, asked_before: bool) -> TurnResult:
        self.asked.append((turn.id, asked_before))
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(turn.id)
            raise
        answer = self.answers.pop(0) if self.answers else TurnResult(TurnOutcome.ANSWERED, f"answer to {turn.id}")
        if isinstance(answer, Exception):
            raise answer
        return answer


class Office:
    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "j")
        self.logbook = Logbook(folder / "box.log")
        self.logbook.hide([SECRET])
        self.outbox = Outbox(self.journal, self.logbook)
        self.workplace = Workplace()
        self.runtime = Answering()
        self.desk = TurnDesk("ada", self.journal, self.outbox, self.logbook, self.workplace, PACE)
        self.sent: list[object] = []

    def open(self) -> None:
        self.workplace.opened(self.runtime)

    def results(self) -> dict[str, TurnResult]:
        self.sent += [decode(frame) for frame in self.outbox.frames()]
        return {frame.turn_id: frame.result for frame in self.sent if isinstance(frame, TurnAnswer)}

    async def result(self, turn_id: str) -> TurnResult:
        await until(lambda: turn_id in self.results(), f"the result of {turn_id}")
        return self.results()[turn_id]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    office = Office(tmp_path)
    yield office
    await office.desk.close()
    office.journal.close()


def turn(turn_id: str, session: str = "", seconds: float = 20.0) -> Turn:
    return Turn(turn_id, session or turn_id, "hello", seconds)


async def test_unavailable_is_asked_again_as_asked_before(office: Office) -> None:
    office.open()
    office.runtime.answers = [RuntimeUnavailable("restarting"), OSError("reset"), TimeoutError()]
    office.desk.offer(turn("t"))
    assert (await office.result("t")).text == "answer to t"
    assert office.runtime.asked == [("t", False), ("t", True), ("t", True), ("t", True)]


async def test_unavailable_until_the_deadline_is_a_failure_in_plain_words(office: Office) -> None:
    office.open()
    office.runtime.answers = [RuntimeUnavailable("no connection to the gateway")] * 1000
    office.desk.offer(turn("t", seconds=0.2))
    result = await office.result("t")
    assert result.outcome is TurnOutcome.FAILED
    assert result.failure == Failure(FailureId.TOO_LATE)
    assert "no connection to the gateway" in result.detail


async def test_a_runtime_that_overstays_the_deadline_is_left_alone(office: Office) -> None:
    office.open()
    office.runtime.open.clear()
    office.desk.offer(turn("t", seconds=0.05))
    assert (await office.result("t")).outcome is TurnOutcome.FAILED
    assert office.runtime.cancelled == ["t"]


async def test_as_many_at_once_as_the_runtime_takes_first_come_first_served(office: Office) -> None:
    office.open()
    office.runtime.open.clear()
    for name in "abcd":
        office.desk.offer(turn(name))
    await until(lambda: len(office.runtime.asked) == 2, "two turns in the runtime")
    office.runtime.open.set()
    for name in "abcd":
        await office.result(name)
    assert [name for name, _ in office.runtime.asked] == ["a", "b", "c", "d"]


async def test_a_busy_session_does_not_hold_up_the_others(office: Office) -> None:
    office.open()
    office.runtime.open.clear()
    for name, session in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        office.desk.offer(turn(name, session))
    await until(lambda: [name for name, _ in office.runtime.asked] == ["a1", "b1"], "b1 beside a1")
    office.runtime.open.set()
    await office.result("a2")


async def test_paused_it_takes_turns_and_starts_none(office: Office) -> None:
    office.open()
    office.desk.pause()
    office.desk.offer(turn("t"))
    await office.desk.idle()
    office.results()
    assert office.sent == [TurnReceived("t")]
    assert office.runtime.asked == []
    office.desk.resume()
    await office.result("t")


async def test_calls_of_turns_that_run_together_are_named_after_all_of_them(office: Office) -> None:
    office.open()
    office.runtime.open.clear()
    assert office.desk.under_way() is None
    office.desk.offer(turn("b", "one"))
    await until(lambda: len(office.runtime.asked) == 1, "a turn in the runtime")
    assert office.desk.under_way() == ("b", "one")
    office.desk.offer(turn("a", "two"))
    await until(lambda: len(office.runtime.asked) == 2, "two turns in the runtime")
    assert office.desk.under_way() == ("a+b", "")
    for said in ("", "nobody's"):
        assert await office.desk.whose_call(said) == ("a+b", "")
    office.runtime.open.set()
    await office.desk.idle()
    assert office.desk.under_way() is None


async def test_a_call_is_named_after_its_own_turn_where_the_runtime_can_tell(office: Office) -> None:
    office.open()
    office.runtime.open.clear()
    assert await office.desk.whose_call("id of one") is None
    office.desk.offer(turn("b", "one"))
    await until(lambda: len(office.runtime.asked) == 1, "a turn in the runtime")
    assert await office.desk.whose_call("id of two") == ("b", "one")  # it runs alone: whatever is called is its call
    office.desk.offer(turn("a", "two"))
    await until(lambda: len(office.runtime.asked) == 2, "two turns in the runtime")
    assert await office.desk.whose_call("id of one") == ("b", "one")
    assert await office.desk.whose_call("id of two") == ("a", "two")
    office.runtime.open.set()
    await office.desk.idle()
    assert await office.desk.whose_call("id of one") is None


async def test_the_next_desk_takes_up_what_this_one_left(office: Office, tmp_path: Path) -> None:
    office.open()
    office.runtime.open.clear()
    for name in "abc":
        office.desk.offer(turn(name))
    await until(lambda: len(office.runtime.asked) == 2, "two turns in the runtime")
    await office.desk.close()
    after = Office(tmp_path)
    after.desk.take_up()
    after.open()
    for name in "abc":
        await after.result(name)
    assert after.runtime.asked == [("a", True), ("b", True), ("c", False)]
    after.journal.close()


async def test_a_settled_turn_is_forgotten_wherever_it_is(office: Office) -> None:
    office.open()
    office.runtime.open.clear()
    for name in "abc":
        office.desk.offer(turn(name))
    await until(lambda: len(office.runtime.asked) == 2, "two turns in the runtime")
    for name in "abc":
        office.desk.settle(name)
    await office.desk.idle()
    assert office.runtime.cancelled == ["a", "b"]
    assert office.results() == {}
    assert office.journal.held() == ()


async def test_no_key_of_ours_leaves_in_an_answer(office: Office) -> None:
    office.open()
    office.runtime.answers = [TurnResult(TurnOutcome.ANSWERED, f"the key is {SECRET}", detail=f"with {SECRET}")]
    office.desk.offer(turn("t"))
    result = await office.result("t")
    assert (result.text, result.detail) == ("the key is ***", "with ***")


async def test_files_too_large_for_a_frame_are_left_out_and_said(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyfat.box.desk.ANSWER_FILES_BYTES_MAX", 1000)
    office.open()
    file = Attachment("a.bin", "application/octet-stream", bytes(2000))
    office.runtime.answers = [TurnResult(TurnOutcome.ANSWERED, "here", (file,))]
    office.desk.offer(turn("t"))
    result = await office.result("t")
    assert result.attachments == ()
    assert "too large to send" in result.text


class FullDisk:
    """A database whose every write fails, as on a full disk; reads go on."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.full = False

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        if self.full and not sql.startswith("SELECT"):
            raise sqlite3.OperationalError("database or disk is full")
        return self._db.execute(sql, *parameters)  # type: ignore[arg-type]

    def close(self) -> None:
        self._db.close()


async def test_on_a_full_disk_answers_still_go_out_and_new_turns_wait(office: Office, tmp_path: Path) -> None:
    disk = FullDisk(office.journal._db)
    office.journal._db = disk  # type: ignore[assignment]
    office.open()
    office.runtime.open.clear()
    office.desk.offer(turn("t"))
    await until(lambda: office.runtime.asked, "the turn in the runtime")
    disk.full = True
    office.desk.offer(turn("u"))
    office.runtime.open.set()
    assert (await office.result("t")).text == "answer to t"
    assert not any(frame == TurnReceived("u") for frame in office.sent)
    office.sent.clear()
    office.desk.offer(turn("t"))
    assert "t" in office.results()  # kept in memory until it is settled
    office.desk.settle("t")
    disk.full = False
    office.desk.offer(turn("u"))
    assert (await office.result("u")).text == "answer to u"
    assert "disk is full" in (tmp_path / "box.log").read_text()


async def test_a_limit_that_outlasts_the_turn_ends_it_soon_and_truly(office: Office) -> None:
    office.open()
    office.runtime.open.clear()  # a runtime that waits out the limit by itself
    office.desk.offer(turn("t", seconds=60.0))
    while not office.runtime.asked:
        await asyncio.sleep(0)
    office.desk.limited("t+other", 3600.0)
    result = await office.result("t")
    assert result.failure is not None and result.failure.id is FailureId.VENDOR_LIMIT
    assert "until" in result.failure.fields and office.runtime.cancelled == ["t"]
    assert len(office.runtime.asked) == 1


async def test_a_limit_that_ends_within_the_turn_is_waited_out(office: Office) -> None:
    office.open()
    office.runtime.open.clear()
    office.desk.offer(turn("t", seconds=60.0))
    while not office.runtime.asked:
        await asyncio.sleep(0)
    office.desk.limited("t", 30.0)
    office.runtime.open.set()
    assert (await office.result("t")).text == "answer to t"


async def test_what_fails_under_a_limit_failed_for_it(office: Office) -> None:
    office.open()
    office.runtime.open.clear()
    office.runtime.answers = [TurnResult(TurnOutcome.FAILED, failure=Failure(FailureId.MODEL_FAILED), detail="429")]
    office.desk.offer(turn("t", seconds=60.0))
    while not office.runtime.asked:
        await asyncio.sleep(0)
    office.desk.limited("t", 3600.0)
    office.runtime.open.set()
    result = await office.result("t")
    assert result.failure is not None and result.failure.id is FailureId.VENDOR_LIMIT and result.detail == "429"
