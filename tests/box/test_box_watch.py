"""The box in this process, at a fast pace: what it does when the runtime, the folder or the token is not well."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.box.plane import Plane, echo_spec, ran, turn, until
from tests.machine_speed import patient
from tinyfat.box.folder import BoxFolder
from tinyfat.box.pace import Pace
from tinyfat.box.process_table import everyone
from tinyfat.box.runtime import Command, InstallFailed, Places, Progress
from tinyfat.box.supervisor import Supervisor
from tinyfat.domain.link import CLOSE_TOKEN_REFUSED, Hello, Log, RuntimeSpec, RuntimeState, Status
from tinyfat.domain.turns import Turn, TurnOutcome, TurnResult

FAST = Pace(
    heartbeat=0.1,
    dial_pause_first=0.02,
    dial_pause_max=0.1,
    token_refused_pause=0.3,
    install_pause_first=0.05,
    ready_poll=0.02,
    probe_interval=0.05,
    probe_timeout=2.0,
    unhealthy_stop=0.2,
    restart_pause_first=0.02,
    restart_pause_max=0.1,
    breaker_pause=60.0,
    ask_pause_first=0.02,
    ask_pause_max=0.1,
    ask_grace=0.5,
)


@dataclass
class Scripted:
    """A runtime whose process and health a test decides. `script` is Python code, run anew for each start."""

    script: str
    folder: Path
    fatal_exits: frozenset[int] = frozenset()
    version: str = "1"
    turns_at_once: int = 2
    is_live: bool = True
    is_ready: bool = True
    starts: int = 0
    install_failures: int = 0
    argv: tuple[str, ...] = ()  # instead of the script
    asked: list[tuple[str, bool]] = field(default_factory=list)
    may_install: asyncio.Event = field(default_factory=asyncio.Event)

    async def install(self, progress: Progress) -> None:
        progress("installing, 1 s")
        if self.install_failures:
            await self.may_install.wait()
            self.install_failures -= 1
            raise InstallFailed("the registry did not answer")

    def command(self) -> Command:
        self.starts += 1
        argv = self.argv or (sys.executable, "-c", self.script, str(self.folder))
        return Command(argv, {"LANG": "C"}, self.folder, 0.5, self.fatal_exits)

    async def live(self) -> bool:
        return self.is_live

    async def ready(self) -> bool:
        return self.is_ready

    async def answer(self, turn: Turn, asked_before: bool) -> TurnResult:
        self.asked.append((turn.id, asked_before))
        raise ValueError("a bug")


class Run:
    """A supervisor that runs until the test is over."""

    def __init__(self, folder: BoxFolder) -> None:
        self.folder = folder
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def begin(self, pace: Pace = FAST, make: Callable[[RuntimeSpec, Places], object] | None = None) -> None:
        more = {"make": make} if make else {}
        supervisor = Supervisor(self.folder, self.folder.identity(), pace, **more)  # type: ignore[arg-type]
        self.task = asyncio.create_task(supervisor.run(self.stop))

    async def over(self) -> None:
        assert self.task is not None
        async with asyncio.timeout(patient(20)):
            await self.task

    def left_running(self) -> list[int]:
        found = []
        for one in everyone():
            with contextlib.suppress(OSError):
                if str(self.folder.path).encode() in Path(f"/proc/{one.pid}/cmdline").read_bytes():
                    found.append(one.pid)
        return found

    def log(self) -> str:
        return self.folder.log.read_text()


@pytest.fixture
async def run(plane: Plane, tmp_path: Path) -> AsyncIterator[Run]:
    path = tmp_path / "box-ada"
    plane.write_box_json(path)
    folder = BoxFolder(path)
    folder.lock()
    run = Run(folder)
    yield run
    run.stop.set()
    if run.task is not None:
        await run.over()
    folder.unlock()
    assert run.left_running() == []


def scripted(run: Run, script: str, **changes: object) -> Scripted:
    return Scripted(script, run.folder.path, **changes)  # type: ignore[arg-type]


SLEEPS = "import time; time.sleep(600)"


async def test_a_removed_folder_ends_the_box(run: Run, plane: Plane) -> None:
    run.begin()
    await plane.state(RuntimeState.READY)
    shutil.rmtree(run.folder.path)
    await run.over()
    assert run.left_running() == []


async def test_a_runtime_that_keeps_dying_is_tried_five_times_and_then_seldom(run: Run, plane: Plane) -> None:
    runtime = scripted(run, "raise SystemExit(9)", is_ready=False)
    run.begin(make=lambda *_: runtime)
    status = await plane.state(RuntimeState.CRASH_LOOP)
    assert runtime.starts == 5
    assert status.restarts == 5
    assert "ended with exit code 9" in status.detail
    assert "60 s" in status.detail


async def test_the_open_breaker_tries_once_and_closes_when_it_is_well_again(run: Run, plane: Plane) -> None:
    (run.folder.path / "broken").touch()
    script = "import pathlib, sys, time\nif pathlib.Path(sys.argv[1], 'broken').exists(): sys.exit(9)\ntime.sleep(600)"
    runtime = scripted(run, script, is_ready=False)
    run.begin(replace(FAST, breaker_pause=0.3, steady=0.0), lambda *_: runtime)
    await plane.state(RuntimeState.CRASH_LOOP)
    assert runtime.starts == 5
    await until(lambda: runtime.starts == 6, "one try while the breaker is open")
    await until(lambda: len([s for s in plane.of(Status) if s.restarts == 6]) > 0, "its failure")
    assert plane.last_status().state is RuntimeState.CRASH_LOOP
    (run.folder.path / "broken").unlink()
    runtime.is_ready = True
    await plane.state(RuntimeState.READY)


async def test_a_fatal_exit_opens_the_breaker_at_once(run: Run, plane: Plane) -> None:
    runtime = scripted(run, "raise SystemExit(78)", is_ready=False, fatal_exits=frozenset({78}))
    run.begin(make=lambda *_: runtime)
    status = await plane.state(RuntimeState.CRASH_LOOP)
    assert runtime.starts == 1
    assert "exit code 78" in status.detail


async def test_a_command_that_does_not_exist_is_said(run: Run, plane: Plane) -> None:
    runtime = scripted(run, "", argv=("no-such-program",), is_ready=False)
    run.begin(make=lambda *_: runtime)
    await plane.state(RuntimeState.CRASH_LOOP)
    assert "cannot run no-such-program" in run.log() or "cannot be run" in run.log()


async def test_over_its_memory_limit_it_is_restarted(run: Run, plane: Plane) -> None:
    """The memory is a child's: the whole tree counts."""
    child = "x = bytearray(80_000_000); import time; time.sleep(600)"
    script = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"
    runtime = scripted(run, script)
    plane.spec = echo_spec(memory_bytes_max=60_000_000)
    run.begin(make=lambda *_: runtime)
    await until(lambda: runtime.starts >= 2, "a restart")
    assert "over its limit of 60 MB" in run.log()


async def test_three_failed_health_checks_restart_it(run: Run, plane: Plane) -> None:
    runtime = scripted(run, SLEEPS)
    run.begin(make=lambda *_: runtime)
    await plane.state(RuntimeState.READY)
    runtime.is_live = False
    await until(lambda: runtime.starts == 2, "a restart")
    assert "did not answer 3 health checks" in run.log()
    assert RuntimeState.UNHEALTHY in [status.state for status in plane.of(Status)]


async def test_one_failed_health_check_does_not(run: Run, plane: Plane) -> None:
    runtime = scripted(run, SLEEPS)
    run.begin(make=lambda *_: runtime)
    await plane.state(RuntimeState.READY)
    runtime.is_live = False
    await plane.state(RuntimeState.UNHEALTHY)
    runtime.is_live = True
    await plane.state(RuntimeState.READY)
    assert runtime.starts == 1


async def test_one_that_is_never_ready_is_restarted_at_the_deadline(run: Run, plane: Plane) -> None:
    runtime = scripted(run, SLEEPS, is_ready=False)
    run.begin(replace(FAST, startup_max=0.1), lambda *_: runtime)
    await until(lambda: runtime.starts >= 2, "a restart")
    assert "was not ready after 0 s" in run.log()


async def test_one_that_ignores_sigterm_is_killed_with_all_it_began(run: Run, plane: Plane) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    script = (
        f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {stubborn!r}, sys.argv[1]])\n"
        f"subprocess.Popen([sys.executable, '-c', {stubborn!r}, sys.argv[1]], start_new_session=True)\n{stubborn}"
    )
    runtime = scripted(run, script)
    run.begin(make=lambda *_: runtime)
    await until(lambda: len(run.left_running()) == 3, "the runtime and its two children")
    run.stop.set()
    await run.over()
    assert run.left_running() == []


async def test_a_failed_install_is_tried_again(run: Run, plane: Plane) -> None:
    runtime = scripted(run, SLEEPS, install_failures=2)
    run.begin(make=lambda *_: runtime)
    await until(lambda: plane.last_status().detail == "installing, 1 s", "the progress")
    runtime.may_install.set()
    await plane.state(RuntimeState.READY)
    details = [status.detail for status in plane.of(Status)]
    assert any("the registry did not answer" in detail for detail in details)


async def test_an_unknown_runtime_is_refused_in_words_until_another_is_wanted(run: Run, plane: Plane) -> None:
    plane.spec = echo_spec(kind="abacus")
    run.begin()
    status = await plane.state(RuntimeState.CRASH_LOOP)
    assert "knows no runtime 'abacus'" in status.detail
    await plane.welcome(echo_spec())
    await plane.state(RuntimeState.READY)


async def test_a_refused_token_is_tried_again_slowly(run: Run, plane: Plane) -> None:
    plane.refuse_with = CLOSE_TOKEN_REFUSED
    run.begin()
    await until(lambda: len(plane.tokens) == 2, "a second try")
    assert run.log().count("refuses this machine's token") == 1
    plane.refuse_with = None
    await plane.connected()


async def test_log_lines_are_kept_while_the_control_plane_is_away(run: Run, plane: Plane) -> None:
    script = "print('a line', flush=True)\nfor n in range(1500): print('line', n, flush=True)\n" + SLEEPS
    runtime = scripted(run, script)
    run.folder.save_spec(plane.spec)
    await plane.close()
    run.begin(make=lambda *_: runtime)
    await until(lambda: run.folder.log.exists() and "line 1499" in run.log(), "the runtime's output")
    await plane.open()
    await until(lambda: any(line.text == "line 1499" for log in plane.of(Log) for line in log.lines), "the last line")
    texts = [line.text for log in plane.of(Log) for line in log.lines]
    assert any("lines before this one were not kept" in text for text in texts)
    assert len(texts) < 1100
    numbers = [int(text.split()[1]) for text in texts if text.startswith("line ") and text.split()[1].isdigit()]
    assert numbers == list(range(numbers[0], 1500))


async def test_a_runtime_that_only_talks_is_cut_short(run: Run, plane: Plane) -> None:
    script = (
        "import time\nfor n in range(30000): print('line', n)\nprint('', flush=True); time.sleep(1.1); print('end')\n"
    )
    runtime = scripted(run, script + SLEEPS.replace("time.sleep", "print('', flush=True); time.sleep"))
    run.begin(make=lambda *_: runtime)
    await until(lambda: "end" in run_log(run), "the last line")
    assert "more lines of the runtime were dropped" in run.log()
    assert run.log().count(" line ") < 10_000


async def test_a_mistake_in_a_runtime_is_a_failed_turn_not_a_dead_box(run: Run, plane: Plane) -> None:
    runtime = scripted(run, SLEEPS)
    run.begin(make=lambda *_: runtime)
    await plane.state(RuntimeState.READY)
    await plane.offer(turn("t1", "hello"))
    result = await plane.result("t1")
    assert result.outcome is TurnOutcome.FAILED
    assert "ValueError: a bug" in result.detail
    assert runtime.asked == [("t1", False)]


async def test_turns_offered_while_it_starts_are_asked_when_it_is_ready(run: Run, plane: Plane) -> None:
    runtime = scripted(run, SLEEPS, is_ready=False)
    run.begin(make=lambda *_: runtime)
    await plane.state(RuntimeState.STARTING)
    await plane.offer(turn("t1", "hello"), turn("t2", "hello", seconds=0.2))
    late = await plane.result("t2")
    assert late.outcome is TurnOutcome.FAILED
    assert "the runtime is not ready: starting" in late.detail or "waited behind" in late.detail
    assert runtime.asked == []
    runtime.is_ready = True
    await plane.result("t1")
    assert runtime.asked == [("t1", False)]


async def test_no_more_than_the_bound_of_turns_is_held(run: Run, plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfat.box.journal.TURNS_HELD_MAX", 3)
    plane.settle = False
    run.begin()
    await plane.state(RuntimeState.READY)
    await plane.offer(*(turn(f"t{number}", "hello", f"s{number}") for number in range(5)))
    for number in range(3):
        await plane.result(f"t{number}")
    assert plane.receipts("t3") == plane.receipts("t4") == 0
    assert ran(run.folder.path) == ["t0", "t1", "t2"]


async def test_the_runtime_gets_exactly_its_environment(run: Run, plane: Plane) -> None:
    run.begin(make=lambda *_: scripted(run, "", argv=("env",), is_ready=False))
    await until(lambda: " runtime " in run_log(run), "its output")
    assert {line.split(" runtime ")[1] for line in run.log().splitlines() if " runtime " in line} == {"LANG=C"}


async def test_the_runtime_ignores_no_signal(run: Run, plane: Plane) -> None:
    """Python ignores SIGPIPE, a shell's background SIGINT; what they start would too. Signals from 32 on are libc's."""
    argv = ("grep", "SigIgn", "/proc/self/status")
    run.begin(make=lambda *_: scripted(run, "", argv=argv, is_ready=False))
    await until(lambda: " runtime " in run_log(run), "its output")
    ignored = re.search(r"SigIgn:\t([0-9a-f]{16})", run.log())
    assert ignored is not None and int(ignored[1], 16) & 0x7FFFFFFF == 0


def run_log(run: Run) -> str:
    return run.log() if run.folder.log.exists() else ""


async def test_a_peer_that_went_silent_is_noticed_and_dialled_again(run: Run, plane: Plane) -> None:
    async with Wire(plane.port) as wire:
        plane.write_box_json(run.folder.path, link_url=f"ws://127.0.0.1:{wire.port}/box/link")
        run.begin(replace(FAST, ping_interval=0.1, ping_timeout=0.2))
        await plane.state(RuntimeState.READY)
        wire.cut()
        await plane.connected(2)
        await plane.offer(turn("t1", "hello"))
        await plane.result("t1")
        run.stop.set()
        await run.over()


class Wire:
    """Passes bytes on, until it is cut: then neither side hears of the other, and nobody is told."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._flowing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Wire:
        self._flowing.set()
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    def cut(self) -> None:
        """Those that are open; a new connection goes through."""
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        self._writers += [writer, far_writer]
        flowing = self._flowing
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.append(asyncio.create_task(self._pass_on(source, sink, flowing)))

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await flowing.wait()
                sink.write(data)
            sink.close()


async def test_hello_comes_first_on_every_connection(run: Run, plane: Plane) -> None:
    run.begin()
    await plane.state(RuntimeState.READY)
    await plane.close()
    before = len(plane.frames)
    await plane.open()
    await plane.connected(2)
    assert isinstance(plane.frames[before], Hello)
