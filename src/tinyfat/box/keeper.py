"""Keeps one runtime running: installs it, starts it, watches it, and starts it again."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tinyfat.box.child import Child, NotGone, end_leftover
from tinyfat.box.logbook import RUNTIME, Logbook
from tinyfat.box.pace import Pace, backoff
from tinyfat.box.patience import Patience
from tinyfat.box.runtime import Command, InstallFailed, Runtime
from tinyfat.box.workplace import Workplace
from tinyfat.domain.link import WORDS_CHARS_MAX, RuntimeSpec, RuntimeState, Status

SAY_START_SECONDS = 15.0  # so often a start that lasts says how long it has
LINES_A_SECOND_MAX = 2000  # of the runtime's output
_SECRET_NAMES = ("TOKEN", "KEY", "SECRET", "PASSWORD")  # of environment variables whose values no log may show


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a start of the runtime is over."""

    words: str
    fatal: bool = False  # it will end so every time


class Keeper:
    """One runtime with one spec. `keep` runs until it is cancelled and then leaves nothing of it running."""

    def __init__(
        self,
        runtime: Runtime,
        spec: RuntimeSpec,
        pid_file: Path,
        logbook: Logbook,
        pace: Pace,
        workplace: Workplace,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runtime = runtime
        self.status = Status(RuntimeState.INSTALLING, version=runtime.version)
        self._spec = spec
        self._pid_file = pid_file
        self._logbook = logbook
        self._pace = pace
        self._workplace = workplace
        self._on_change = on_change
        self._clock = clock
        self._patience = Patience(pid_file.with_name("starts.json"), pace.startup_max, pace.startup_longest)
        self._restarts = 0
        self.memory_bytes = 0  # of the runtime's processes, when last looked at
        self._ready_since: float | None = None
        self._deaths: deque[float] = deque(maxlen=pace.deaths_max)
        self._attempt = 0
        self._breaker_open = False
        self._said_second = 0
        self._said_lines = 0

    def renamed(self, agent_name: str) -> None:
        self._spec = replace(self._spec, agent_name=agent_name)
        self.runtime.renamed(agent_name)

    async def keep(self) -> None:
        try:
            await self._install()
            while True:
                command = await self._prepared()
                if isinstance(command, Command):
                    ended = await self._one_life(command)
                elif command is None:
                    await self._nothing_to_watch()
                else:
                    ended = command
                await self._rest(ended)
        finally:
            self._become(RuntimeState.STOPPED)

    async def _install(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            self._become(RuntimeState.INSTALLING)
            try:
                # From whatever thread it installs in.
                await self.runtime.install(lambda words: _post(loop, self._progress, words))
                return
            except InstallFailed as error:
                pause = backoff(attempt, self._pace.install_pause_first, self._pace.install_pause_max)
                why, newline, output = str(error).partition("\n")
                words = f"{why}; tried again in {pause:.0f} s{newline}{output}"
                self._logbook.box(words)
                self._become(RuntimeState.CRASH_LOOP, words)
            attempt += 1
            await asyncio.sleep(pause)

    def _progress(self, words: str) -> None:
        if self.status.state is RuntimeState.INSTALLING:
            self._become(RuntimeState.INSTALLING, words)

    async def _prepared(self) -> Command | Ended | None:
        """The next command, with nothing of the last one left running."""
        try:
            if await end_leftover(self._pid_file):
                self._logbook.box("ended a runtime that an earlier box left behind")
            return self.runtime.command()
        except NotGone as error:
            return Ended(f"what ran before does not end: {error}")
        except OSError as error:
            return Ended(f"cannot be prepared: {error}")

    async def _nothing_to_watch(self) -> None:
        """A runtime that runs only while it answers."""
        self._become(RuntimeState.READY)
        await asyncio.Event().wait()

    async def _one_life(self, command: Command) -> Ended:
        self._logbook.hide(_secrets_of(command))
        self._become(RuntimeState.STARTING)
        try:
            child = await Child.start(command, self._pid_file, self._runtime_said)
        except OSError as error:
            return Ended(f"cannot be run: {error}")
        stop_seconds = command.stop_seconds
        try:
            ended = await self._watched(child, command)
            stop_seconds = self._pace.unhealthy_stop  # had it been well, this would have been cancelled
            return ended
        finally:
            self._ready_since = None
            self.memory_bytes = 0
            self._workplace.closed("it is being stopped")
            try:
                # In a task of its own: in one that is being cancelled, asyncio.timeout does not work before
                # Python 3.11.4 (gh-102780), and SIGKILL would never come.
                await asyncio.create_task(child.end(stop_seconds))
            except NotGone as error:
                self._logbook.box(str(error))  # the next start looks for it again

    async def _watched(self, child: Child, command: Command) -> Ended:
        """Whichever is first: it ends by itself, or is found unwell."""
        exit_task = asyncio.create_task(child.exited())
        health_task = asyncio.create_task(self._health(child))
        try:
            await asyncio.wait((exit_task, health_task), return_when=asyncio.FIRST_COMPLETED)
            if exit_task.done():
                code = exit_task.result()
                return Ended(_exit_words(code), code in command.fatal_exits)
            return health_task.result()
        finally:
            exit_task.cancel()
            health_task.cancel()
            await asyncio.gather(exit_task, health_task, return_exceptions=True)

    async def _health(self, child: Child) -> Ended:
        """Returns when it must be ended."""
        began = self._clock()
        patience = self._patience.seconds()
        said = 0
        while not await self._probe(self.runtime.ready):
            waited = self._clock() - began
            if waited > patience:
                self._patience.was_killed(patience)
                longer = self._patience.seconds()
                return Ended(f"was not ready after {patience:.0f} s (the next start may take {longer:.0f} s)")
            if waited >= (said + 1) * SAY_START_SECONDS:
                said = int(waited / SAY_START_SECONDS)
                self._become(RuntimeState.STARTING, f"starting for {waited:.0f} s; it may take {patience:.0f} s")
            await asyncio.sleep(self._pace.ready_poll)
        self._ready_since = self._clock()
        self._patience.was_ready(self._ready_since - began)
        self._logbook.box(f"{self._spec.kind} {self.runtime.version} is ready after {self._ready_since - began:.2f} s")
        self._become(RuntimeState.READY)
        failures = 0
        while True:
            await asyncio.sleep(self._pace.probe_interval)
            failures = 0 if await self._probe(self.runtime.live) else failures + 1
            if failures >= self._pace.probe_failures_max:
                return Ended(f"did not answer {failures} health checks in a row")
            self.memory_bytes = child.rss_bytes()
            if self.memory_bytes > self._spec.memory_bytes_max:
                return Ended(
                    f"used {_mb(self.memory_bytes)} MB of memory, over its limit of "
                    f"{_mb(self._spec.memory_bytes_max)} MB"
                )
            await self._judge(failures)

    async def _judge(self, failures: int) -> None:
        if failures:
            self._become(RuntimeState.UNHEALTHY, f"did not answer {failures} of its health checks")
        elif not await self._probe(self.runtime.ready):
            self._become(RuntimeState.UNHEALTHY, "runs, and says that it is not ready")
        else:
            self._become(RuntimeState.READY)
        if self._ready_since is not None and self._clock() - self._ready_since > self._pace.steady:
            self._attempt = 0
            self._breaker_open = False
            self._deaths.clear()

    async def _probe(self, ask: Callable[[], Awaitable[bool]]) -> bool:
        try:
            async with asyncio.timeout(self._pace.probe_timeout):
                return await ask()
        except (OSError, TimeoutError):
            return False

    async def _rest(self, ended: Ended) -> None:
        """Between two starts: short at first, longer each time, long once it keeps dying."""
        now = self._clock()
        self._deaths.append(now)
        self._restarts += 1
        many = len(self._deaths) == self._pace.deaths_max and now - self._deaths[0] < self._pace.deaths_window
        if ended.fatal or many:
            self._breaker_open = True
        if self._breaker_open:
            pause = self._pace.breaker_pause
            why = "its exit code says that it will not start like this" if ended.fatal else "it keeps dying"
            words = f"{ended.words}; {why}, so it is tried only every {pause:.0f} s"
            self._become(RuntimeState.CRASH_LOOP, words)
        else:
            pause = backoff(self._attempt, self._pace.restart_pause_first, self._pace.restart_pause_max)
            words = f"{ended.words}; started again in {pause:.1f} s"
            self._become(RuntimeState.STARTING, words)
        self._attempt += 1
        self._logbook.box(f"{self._spec.kind} of agent {self._spec.agent_name}: {words}")
        await asyncio.sleep(pause)

    def _become(self, state: RuntimeState, detail: str = "") -> None:
        old = self.status
        if state is RuntimeState.READY:
            self._workplace.opened(self.runtime)
        else:
            self._workplace.closed(f"{state.value}: {detail}" if detail else state.value)
        self.status = Status(
            state,
            self._logbook.clean(detail)[:WORDS_CHARS_MAX],
            self.runtime.version,
            self.memory_bytes,
            self._restarts,
        )
        if (old.state, old.detail) != (state, self.status.detail):
            self._on_change()

    def _runtime_said(self, line: str) -> None:
        """So much a second and no more: a runtime that only talks must not keep the box from its work."""
        second = int(self._clock())
        if second != self._said_second:
            if self._said_lines > LINES_A_SECOND_MAX:
                self._logbook.box(f"{self._said_lines - LINES_A_SECOND_MAX} more lines of the runtime were dropped")
            self._said_second, self._said_lines = second, 0
        self._said_lines += 1
        if self._said_lines <= LINES_A_SECOND_MAX:
            self._logbook.write(RUNTIME, line)


def _post(loop: asyncio.AbstractEventLoop, say: Callable[[str], None], words: str) -> None:
    loop.call_soon_threadsafe(say, words)


def _secrets_of(command: Command) -> list[str]:
    return [value for name, value in command.environment.items() if any(word in name.upper() for word in _SECRET_NAMES)]


def _exit_words(code: int) -> str:
    return f"died of signal {-code}" if code < 0 else f"ended with exit code {code}"


def _mb(count: int) -> int:
    return round(count / 1_000_000)
