"""Work on what strangers send, in other processes: its bounds, its ends, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import uvloop

from tests.engine import jobs
from tests.machine_speed import patient
from tinyfat.engine import workers as module
from tinyfat.engine.workers import WorkerBusy, WorkerDied, WorkerFailed, Workers, WorkRefused, WorkTookTooLong


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers()
    yield workers
    await workers.close()


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(patient(seconds)):
        while not condition():
            await asyncio.sleep(0.005)


def began(path: Path) -> int:
    return len(list(path.parent.glob(path.name + ".began.*")))


async def test_a_job_is_done_elsewhere_and_its_process_used_again(workers: Workers) -> None:
    assert await workers.run(jobs.doubled, "ab", size=2) == "abab"
    first, second = await workers.run(jobs.pid, size=0), await workers.run(jobs.pid, size=0)
    assert first == second != os.getpid()


async def test_a_large_body_goes_and_comes(workers: Workers) -> None:
    assert await workers.run(jobs.length, bytes(30_000_000), size=30_000_000) == 30_000_000
    assert await workers.run(jobs.many, 20_000_000, size=0) == bytes(20_000_000)


async def test_a_process_has_no_secret_and_not_our_main_module(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYFAT_MASTER_KEY", "secret")
    names, main = await workers.run(jobs.surroundings, size=0)
    assert not [name for name in names if "TINYFAT" in name]
    assert main and main.endswith("worker_child.py")


async def test_what_takes_too_long_is_killed_and_the_next_is_done(workers: Workers) -> None:
    with pytest.raises(WorkTookTooLong):
        await workers.run(jobs.endless, size=0, seconds=0.3)
    assert await workers.run(jobs.doubled, "a", size=1) == "aa"


@pytest.mark.parametrize("job", [jobs.dies, jobs.leaves])
async def test_a_process_that_dies_is_named_and_the_next_is_done(workers: Workers, job: Callable[[], None]) -> None:
    with pytest.raises(WorkerDied):
        await workers.run(job, size=0)
    assert await workers.run(jobs.doubled, "a", size=1) == "aa"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS bounds no address space")
async def test_a_job_that_wants_too_much_memory_is_refused(workers: Workers) -> None:
    with pytest.raises(WorkerDied, match="memory"):
        await workers.run(jobs.eats, 4 * 1024**3, size=0)
    assert await workers.run(jobs.doubled, "a", size=1) == "aa"


async def test_what_held_much_memory_ends_after_its_job(workers: Workers) -> None:
    assert await workers.run(jobs.eats, 200_000_000, size=0) == 200_000_000
    assert workers.processes == 0


async def test_its_errors_are_raised_here(workers: Workers) -> None:
    with pytest.raises(KeyError, match="as it is"):
        await workers.run(jobs.raises, size=0)
    with pytest.raises(WorkRefused, match="Odd: one"):
        await workers.run(jobs.raises_oddly, size=0)
    assert await workers.run(jobs.doubled, "a", size=1) == "aa"


async def test_a_result_larger_than_it_may_be_is_refused(workers: Workers) -> None:
    with pytest.raises(WorkRefused):
        await workers.run(jobs.many, 1001, size=0, answer_max=1000)
    assert await workers.run(jobs.doubled, "a", size=1) == "aa"


async def test_what_a_job_prints_goes_nowhere(workers: Workers, capfd: pytest.CaptureFixture[str]) -> None:
    assert await workers.run(jobs.prints, "x\x1b]52;c;aGk=\x07", size=0)
    assert capfd.readouterr() == ("", "")


async def test_the_size_of_all_jobs_is_bounded(tmp_path: Path) -> None:
    workers = Workers(size_max=100)
    gate = tmp_path / "gate"
    first = asyncio.create_task(workers.run(jobs.waits_for, str(gate), size=60))
    await until(lambda: began(gate) == 1)
    with pytest.raises(WorkerBusy):
        await workers.run(jobs.doubled, "a", size=41)
    assert await workers.run(jobs.doubled, "a", size=40, whose="another") == "aa"
    gate.touch()
    await first
    assert await workers.run(jobs.doubled, "a", size=100) == "aa"
    await workers.close()


async def test_an_owner_leaves_a_process_and_places_to_others(tmp_path: Path) -> None:
    workers = Workers(processes=2)
    gate = tmp_path / "gate"
    jobs_of_one = [asyncio.create_task(workers.run(jobs.waits_for, str(gate), size=0, whose="a")) for _ in range(40)]
    await until(lambda: began(gate) == 1 and sum(job.done() for job in jobs_of_one) > 0)
    assert await workers.run(jobs.doubled, "b", size=0, whose="b") == "bb"
    assert began(gate) == 1, "one owner has all processes"
    gate.touch()
    done = await asyncio.gather(*jobs_of_one, return_exceptions=True)
    refused = [one for one in done if isinstance(one, WorkerBusy)]
    assert len(refused) == 40 - 1 - module.WAITING_MAX // module.OWNERS_PART
    assert all(isinstance(one, (int, WorkerBusy)) for one in done)
    await workers.close()


async def test_a_caller_that_goes_away_ends_its_job_or_leaves_its_place(tmp_path: Path) -> None:
    workers = Workers(processes=1)
    gate = tmp_path / "gate"
    running = asyncio.create_task(workers.run(jobs.endless, size=5))
    await until(lambda: workers.processes == 1)
    waiting = asyncio.create_task(workers.run(jobs.waits_for, str(gate), size=5))
    await asyncio.sleep(0)
    for job in (waiting, running):
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
    assert await workers.run(jobs.doubled, "a", size=1) == "aa"
    assert began(gate) == 0
    await workers.close()


async def test_idle_processes_end(tmp_path: Path) -> None:
    workers = Workers(idle_seconds=0.05)
    pid = await workers.run(jobs.pid, size=0)
    await until(lambda: workers.processes == 0 and not psutil.pid_exists(pid))
    assert await workers.run(jobs.pid, size=0) != pid
    await workers.close()


async def test_closing_ends_what_runs_and_leaves_nobody(tmp_path: Path) -> None:
    workers = Workers()
    gate = tmp_path / "gate"
    job = asyncio.create_task(workers.run(jobs.waits_for, str(gate), size=0))
    await until(lambda: began(gate) == 1)
    pid = int(next(tmp_path.glob("gate.began.*")).suffix[1:])
    await workers.close()
    with pytest.raises(WorkerDied):
        await job
    await until(lambda: not psutil.pid_exists(pid))


async def test_no_process_to_be_had_is_named(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(WorkerDied, match="no process"):
        await workers.run(jobs.pid, size=0)


def test_it_works_under_uvloop() -> None:
    async def all_of_it() -> None:
        workers = Workers()
        assert await workers.run(jobs.length, bytes(5_000_000), size=5_000_000) == 5_000_000
        with pytest.raises(WorkTookTooLong):
            await workers.run(jobs.endless, size=0, seconds=0.2)
        with pytest.raises(WorkerFailed):
            await workers.run(jobs.dies, size=0)
        await workers.close()

    uvloop.run(all_of_it())


PARENT = """
    import asyncio, sys
    from tests.engine import jobs
    from tinyfat.engine.workers import Workers

    async def main():
        workers = Workers()
        asyncio.create_task(workers.run(jobs.waits_for, sys.argv[1], size=0))
        await workers.run(jobs.pid, size=0, whose="b")
        await asyncio.sleep(60)

    asyncio.run(main())
"""


async def test_processes_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PARENT), str(gate)], env=env)
    await until(lambda: began(gate) == 1)
    pid = int(next(tmp_path.glob("gate.began.*")).suffix[1:])
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    gate.touch()
    await until(lambda: not psutil.pid_exists(pid))
