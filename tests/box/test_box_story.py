"""The box as a process, with the echo runtime, against a small control plane: what it was told twice it does once."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.box.boxes import Box
from tests.box.plane import MODEL_KEY, TOKEN, Plane, echo_spec, ran, turn, until
from tinyfat.box.process_table import boot, look
from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.link import CLOSE_NOT_WANTED, Hello, Log, RuntimeState, TurnSettled
from tinyfat.domain.turns import Attachment, TurnOutcome

pytestmark = pytest.mark.slow


async def started(box: Box, plane: Plane) -> None:
    await box.start()
    await plane.state(RuntimeState.READY)


async def test_a_turn_there_and_back(box: Box, plane: Plane) -> None:
    await started(box, plane)
    await plane.offer(turn("t1", "My boat is called Heron."))
    result = await plane.result("t1")
    assert result.outcome is TurnOutcome.ANSWERED
    assert result.text == "My boat is called Heron.\n\n(turn 1 of this conversation)"
    assert 0 < result.received_at <= result.answered_at
    assert plane.receipts("t1") == 1
    assert plane.tokens == [f"Bearer {TOKEN}"]
    await plane.offer(turn("t2", "echo: attach report.txt 1000\nWhat is it called?"))
    second = await plane.result("t2")
    assert "Your first message here began: My boat is called Heron." in second.text
    assert [(file.filename, len(file.content)) for file in second.attachments] == [("report.txt", 1000)]


async def test_large_files_go_both_ways(box: Box, plane: Plane) -> None:
    await started(box, plane)
    files = (Attachment("in.bin", "application/octet-stream", bytes(range(256)) * 12_000),)
    question = replace(turn("t1", "echo: attach out.bin 4000000\nTake it."), attachments=files)
    await plane.offer(question)
    result = await plane.result("t1")
    assert "Files with it: in.bin (3072000 bytes)" in result.text
    assert [(file.filename, len(file.content)) for file in result.attachments] == [("out.bin", 4_000_000)]


async def test_a_failure_of_the_runtime_comes_back_as_one(box: Box, plane: Plane) -> None:
    await started(box, plane)
    await plane.offer(turn("t1", "echo: fail"))
    result = await plane.result("t1")
    assert result.outcome is TurnOutcome.FAILED
    assert result.failure and "echo: fail" in result.detail


async def test_an_offer_that_comes_three_times_is_done_once(box: Box, plane: Plane) -> None:
    plane.settle = False
    await started(box, plane)
    same = turn("t1", "echo: sleep 0.3")
    await plane.offer(same, same)
    await until(lambda: plane.receipts("t1"), "the receipt")
    receipts = plane.receipts("t1")
    await plane.offer(same)
    await until(lambda: plane.receipts("t1") > receipts, "another receipt")
    await plane.result("t1")
    await plane.offer(same)
    await until(lambda: len(plane.results("t1")) == 2, "the kept result, sent again")
    assert ran(box.folder) == ["t1"]
    assert plane.results("t1")[0] == plane.results("t1")[1]


async def test_a_result_is_sent_after_every_reconnect_until_it_is_settled(box: Box, plane: Plane) -> None:
    plane.settle = False
    await started(box, plane)
    await plane.offer(turn("t1", "hello"))
    await plane.result("t1")
    await plane.close()
    await plane.open()
    await until(lambda: len(plane.results("t1")) == 2, "the result on the second connection")
    assert plane.of(Hello)[-1].turns_held == ("t1",)
    await plane.say(TurnSettled("t1"))
    await plane.offer(turn("t2", "after it"))  # frames are taken in order: by its result, t1 is settled
    await plane.result("t2")
    await plane.say(TurnSettled("t2"))
    await plane.close()
    await plane.open()
    await plane.connected(3)
    assert plane.of(Hello)[-1].turns_held in ((), ("t2",))
    assert len(plane.results("t1")) == 2


async def test_a_settled_turn_that_is_offered_again_does_not_run_again(box: Box, plane: Plane) -> None:
    await started(box, plane)
    await plane.offer(turn("t1", "hello"))
    first = await plane.result("t1")
    await plane.offer(turn("t1", "hello"))
    await until(lambda: len(plane.results("t1")) == 2, "the answer, found in the runtime's history")
    assert ran(box.folder) == ["t1"]
    assert plane.results("t1")[1].text == first.text


async def test_the_box_is_killed_in_mid_turn(box: Box, plane: Plane) -> None:
    await started(box, plane)
    await plane.offer(turn("t1", "echo: sleep 1\nhello"), turn("t2", "second", session="email:1"))
    await until(lambda: ran(box.folder) == ["t1"], "the turn in the runtime")
    runtime = box.runtime_pid()
    await box.kill()
    await until(lambda: runtime not in [one.pid for one in box.running()], "the runtime's death with its box")
    await box.start()
    await plane.result("t1")
    await plane.result("t2")
    assert ran(box.folder) == ["t1", "t2"]
    assert ran(box.folder, "answered") == ["t1", "t2"]
    assert plane.results("t1")[0].text.startswith("echo: sleep 1\nhello")
    assert len(plane.results("t1")) == 1
    assert plane.of(Hello)[-1].turns_held == ("t1", "t2")


async def test_the_runtime_is_killed_in_mid_turn(box: Box, plane: Plane) -> None:
    await started(box, plane)
    await plane.offer(turn("t1", "echo: sleep 0.5\nhello"))
    await until(lambda: ran(box.folder) == ["t1"], "the turn in the runtime")
    os.kill(box.runtime_pid(), signal.SIGKILL)
    result = await plane.result("t1")
    assert result.outcome is TurnOutcome.ANSWERED
    assert ran(box.folder) == ["t1"]
    assert ran(box.folder, "answered") == ["t1"]
    assert "died of signal 9" in box.log()


async def test_a_runtime_that_crashes_in_mid_turn_still_answers_once(box: Box, plane: Plane) -> None:
    await started(box, plane)
    await plane.offer(turn("t1", "echo: crash\nhello"))
    assert (await plane.result("t1")).text.endswith("(turn 1 of this conversation)")
    assert ran(box.folder) == ran(box.folder, "answered") == ["t1"]


async def test_the_control_plane_is_away_for_a_while(box: Box, plane: Plane) -> None:
    await started(box, plane)
    await plane.offer(turn("t1", "echo: sleep 0.3"))
    await until(lambda: plane.receipts("t1"), "the receipt")
    await plane.close()
    await until(lambda: ran(box.folder, "answered") == ["t1"], "the answer, with nobody to hear it")
    await plane.open()
    assert (await plane.result("t1")).outcome is TurnOutcome.ANSWERED
    assert ran(box.folder) == ["t1"]


async def test_the_runtime_starts_before_the_control_plane_is_back(box: Box, plane: Plane) -> None:
    await started(box, plane)
    await box.terminate()
    await plane.close()
    await box.start()
    await until(box.runtime_pid, "the runtime, from the spec that was kept")


async def test_turns_of_one_session_keep_their_order_and_others_run_beside_them(box: Box, plane: Plane) -> None:
    await started(box, plane)
    await plane.offer(turn("a1", "echo: sleep 0.4", session="a"), turn("a2", "x", session="a"), turn("b1", "x", "b"))
    for turn_id in ("a1", "a2", "b1"):
        await plane.result(turn_id)
    assert ran(box.folder, "answered") == ["b1", "a1", "a2"]


async def test_a_turn_ends_at_its_deadline_in_plain_words(box: Box, plane: Plane) -> None:
    await started(box, plane)
    await plane.offer(turn("t1", "echo: hang", seconds=0.5), turn("t2", "echo: hang", seconds=0.7))
    for turn_id in ("t1", "t2"):
        result = await plane.result(turn_id)
        assert result.outcome is TurnOutcome.FAILED
        assert result.failure is not None and result.failure.id is FailureId.TOO_LATE
        assert "deadline" in result.detail


async def test_a_turn_nobody_wants_any_more_is_dropped(box: Box, plane: Plane) -> None:
    await started(box, plane)
    await plane.offer(turn("t1", "echo: sleep 2"), turn("t2", "hello"), turn("t3", "waits too"))
    await until(lambda: plane.receipts("t2"), "the receipts")
    await plane.say(TurnSettled("t1"))
    await plane.say(TurnSettled("t3"))
    await plane.close()
    await plane.open()
    await plane.connected(2)
    assert plane.of(Hello)[-1].turns_held == ("t2",)


async def test_a_second_box_on_a_folder_is_refused(box: Box, plane: Plane) -> None:
    await started(box, plane)
    second = Box(box.folder)
    await second.start()
    assert await second.exit() == 3
    await plane.offer(turn("t1", "hello"))
    await plane.result("t1")


async def test_a_folder_without_box_json_is_refused(box: Box) -> None:
    (box.folder / "box.json").unlink()
    await box.start()
    assert await box.exit() == 2


async def test_sigterm_leaves_no_process_and_lets_the_turn_finish(box: Box, plane: Plane) -> None:
    await started(box, plane)
    await plane.offer(turn("t1", "echo: sleep 0.5"))
    await until(lambda: ran(box.folder) == ["t1"], "the turn in the runtime")
    assert await box.terminate() == 0
    assert box.running() == []
    assert plane.results("t1")[0].outcome is TurnOutcome.ANSWERED


async def test_a_machine_that_is_not_wanted_ends(box: Box, plane: Plane) -> None:
    await started(box, plane)
    for socket in list(plane.sockets):
        await socket.close(CLOSE_NOT_WANTED)
    assert await box.exit() == 0
    assert box.running() == []


async def test_a_runtime_left_behind_is_ended_before_a_new_one_starts(box: Box, plane: Plane) -> None:
    """What macOS leaves, where no kernel ends the child with its parent, and a grandchild anywhere."""
    await started(box, plane)
    await box.terminate()
    left = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    seen = look(left.pid)
    assert seen is not None
    (box.folder / "runtime.pid").write_text(f'{{"pid": {left.pid}, "started": "{seen.started}", "boot": "{boot()}"}}')
    await box.start()
    assert await left.wait() == -signal.SIGKILL
    await plane.connected(2)


async def test_a_new_spec_restarts_the_runtime_when_it_is_idle(box: Box, plane: Plane) -> None:
    await started(box, plane)
    first = box.runtime_pid()
    await plane.offer(turn("t1", "echo: sleep 0.5"))
    await until(lambda: ran(box.folder) == ["t1"], "the turn in the runtime")
    await plane.welcome(echo_spec(memory_bytes_max=2 * 10**9))
    await plane.offer(turn("t2", "after the restart", session="other"))
    assert (await plane.result("t1")).outcome is TurnOutcome.ANSWERED
    assert (await plane.result("t2")).outcome is TurnOutcome.ANSWERED
    assert box.runtime_pid() not in (0, first)
    assert ran(box.folder, "resumed") == []


async def test_no_secret_reaches_the_log_or_a_command_line(box: Box, plane: Plane) -> None:
    await started(box, plane)
    await plane.offer(turn("t1", f"say {TOKEN} and {MODEL_KEY}"))
    await plane.result("t1")
    await plane.offer(turn("t2", "echo: crash"))
    await plane.result("t2")
    await until(lambda: "died" in box.log() or "exit code 1" in box.log(), "the crash in the log")
    lines = " ".join(line.text for log in plane.of(Log) for line in log.lines)
    commands = " ".join(Path(f"/proc/{one.pid}/cmdline").read_text() for one in box.running())
    for place in (box.log(), lines, commands):
        assert place
        assert TOKEN not in place
        assert MODEL_KEY not in place
    for name in ("spec.json", "journal.sqlite", "box.log"):
        assert (box.folder / name).stat().st_mode & 0o077 == 0, name
