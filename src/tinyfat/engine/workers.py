"""CPU-heavy work on what strangers and boxes send, in other processes: the loop and its GIL stay free.

    answer = await workers.run(read_mail, raw, size=len(raw), whose=peer)

`anyio.to_process` was tried: its child runs our main module anew (the whole command line: 0.5 s, 60 MB), stays until
somebody asks again, and knows no bound of memory. concurrent.futures and multiprocessing do the same, and end no job.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tinyfat.engine import worker_child

PROCESSES = 2  # at once; a third would only take the processor from the loop on the machines we are made for
WAITING_MAX = 64  # jobs that wait for a process
SIZE_MAX = 128 * 1024 * 1024  # of input, over all jobs that run or wait
OWNERS_PART = 4  # one owner has at most a quarter of the waiting places
SECONDS_MAX = 10.0  # for one job, from the moment it has a process
WAIT_SECONDS_MAX = 30.0  # for a process
MEMORY_MAX = 768 * 1024 * 1024  # of address space, for one process
ANSWER_BYTES_MAX = 64 * 1024 * 1024
IDLE_SECONDS = 15.0  # then a process ends
PIECE_BYTES = 256 * 1024  # handed to the socket at a time

T = TypeVar("T")


class WorkerFailed(Exception):
    """The job has no result, by no fault of its caller's code."""


class WorkerBusy(WorkerFailed):
    """Too much waits already; nothing was begun. Later it may go."""


class WorkTookTooLong(WorkerFailed):
    """Its seconds are over, and its process was killed."""


class WorkerDied(WorkerFailed):
    """The process ended under the job, or could not be started, or had no memory left."""


class WorkRefused(WorkerFailed):
    """What the function returned is too large, or its error cannot be told by its type."""


@dataclass(eq=False)
class _Place:
    """In the queue."""

    whose: str
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(eq=False)
class _Child:
    process: subprocess.Popen[bytes]
    read: asyncio.StreamReader
    write: asyncio.StreamWriter
    idle_since: float = 0.0


class Workers:
    """A few processes, begun when there is work and ended when there is none. One for each control plane, of one loop.

    Jobs of one owner (`whose`) run on all processes but one at most, so that another's never wait for theirs alone.
    """

    def __init__(
        self, processes: int = PROCESSES, size_max: int = SIZE_MAX, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._processes = processes
        self._size_max = size_max
        self._idle_seconds = idle_seconds
        self._size = 0
        self._running: Counter[str] = Counter()
        self._waiting: list[_Place] = []
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._ends: set[asyncio.Future[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def run(
        self,
        function: Callable[..., T],
        *arguments: object,
        size: int,
        whose: str = "",
        seconds: float = SECONDS_MAX,
        memory: int = MEMORY_MAX,
        answer_max: int = ANSWER_BYTES_MAX,
    ) -> T:
        """What `function(*arguments)` returns, done in another process within `seconds`.

        `function` is a module's own (no lambda, no method of an object with a lock), from a module that imports little:
        its import is the first job's cold start. Arguments and result are pickled; the result is unpickled on the loop,
        so let it be bytes, text or a few hundred objects, and name in `answer_max` the bytes it can have.
        `size`: bytes of input, counted against what all jobs together may hold. `whose`: a tenant, a peer; nobody takes
        all of the places. A caller that is cancelled ends its job. What `function` raises is raised here.

        Raises WorkerBusy (answer 503 or 451, the sender comes again), WorkTookTooLong, WorkerDied, WorkRefused: all
        WorkerFailed. A job that took too long or died would again: refuse the input for good.
        """
        if self._size + size > self._size_max:
            raise WorkerBusy(f"{self._size} bytes are being worked on already")
        self._size += size
        try:
            await self._begin(whose)
            try:
                request = pickle.dumps((function, arguments), pickle.HIGHEST_PROTOCOL)
                return await self._ask(request, seconds, memory, answer_max)  # type: ignore[no-any-return]
            finally:
                self._running[whose] -= 1
                self._grant()
        finally:
            self._size -= size

    async def close(self) -> None:
        """Every process is gone; jobs that run end with WorkerDied. It may be used again."""
        if self._timer:
            self._timer.cancel()
        for child in (*self._idle, *self._busy):
            self._end(child)
        self._idle.clear()
        await asyncio.gather(*self._ends, return_exceptions=True)

    @property
    def processes(self) -> int:
        """That live now."""
        return len(self._idle) + len(self._busy)

    async def _begin(self, whose: str) -> None:
        """There is a process for it. Raises WorkerBusy."""
        place = _Place(whose)
        if sum(other.whose == whose for other in self._waiting) >= WAITING_MAX // OWNERS_PART:
            raise WorkerBusy("too many jobs of one owner wait already")
        if len(self._waiting) >= WAITING_MAX:
            raise WorkerBusy("too many jobs wait already")
        self._waiting.append(place)
        self._grant()
        try:
            await asyncio.wait_for(asyncio.shield(place.granted), WAIT_SECONDS_MAX)
        except TimeoutError:
            self._leave(place)
            raise WorkerBusy("no process was free in time") from None
        except BaseException:
            self._leave(place)
            raise

    def _grant(self) -> None:
        for place in tuple(self._waiting):
            if self._running.total() >= self._processes:
                return
            if self._running[place.whose] < max(1, self._processes - 1):
                self._waiting.remove(place)
                self._running[place.whose] += 1
                place.granted.set_result(None)
        self._running = +self._running

    def _leave(self, place: _Place) -> None:
        """Nobody waits there any more."""
        if place in self._waiting:
            self._waiting.remove(place)
        else:
            self._running[place.whose] -= 1
            self._grant()

    async def _ask(self, request: bytes, seconds: float, memory: int, answer_max: int) -> Any:
        child = self._idle.pop() if self._idle else await self._start()
        self._busy.add(child)
        goes_on = False
        try:
            async with asyncio.timeout(seconds):
                head = worker_child.ASK.pack(len(request), memory, seconds, answer_max)
                ended, answer = await _exchange(child, head, request)
            goes_on = not ended & worker_child.LAST
        except TimeoutError:
            raise WorkTookTooLong(f"it was not done within {seconds:g} s") from None
        except (OSError, EOFError) as error:
            raise WorkerDied(f"the process ended under its job: {error}") from None
        finally:
            self._busy.discard(child)
            if goes_on:
                self._keep(child)
            else:
                self._end(child)
        return _result(ended & ~worker_child.LAST, answer)

    async def _start(self) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = _popen(theirs)
            except OSError as error:
                ours.close()
                raise WorkerDied(f"no process could be started: {error}") from None
        ours.setblocking(False)
        return _Child(process, *await asyncio.open_connection(sock=ours))

    def _keep(self, child: _Child) -> None:
        loop = asyncio.get_running_loop()
        child.idle_since = loop.time()
        self._idle.append(child)
        if self._timer is None:
            self._timer = loop.call_later(self._idle_seconds, self._end_idle)

    def _end_idle(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        over = [child for child in self._idle if loop.time() - child.idle_since >= self._idle_seconds]
        for child in over:
            self._idle.remove(child)
            self._end(child)
        if self._idle:
            self._timer = loop.call_later(self._idle_seconds, self._end_idle)

    def _end(self, child: _Child) -> None:
        child.write.close()
        with suppress(OSError):
            child.process.kill()
        end = asyncio.get_running_loop().run_in_executor(None, child.process.wait)
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)


async def _exchange(child: _Child, head: bytes, request: bytes) -> tuple[int, bytes]:
    child.write.write(head)
    whole = memoryview(request)
    for start in range(0, len(whole), PIECE_BYTES):
        child.write.write(whole[start : start + PIECE_BYTES])
        await child.write.drain()
    ended, length = worker_child.HEAD.unpack(await child.read.readexactly(worker_child.HEAD.size))
    return ended, await child.read.readexactly(length)


def _result(ended: int, answer: bytes) -> Any:
    if ended == worker_child.OUT_OF_MEMORY:
        raise WorkerDied("it needs more memory than a job may have")
    if ended == worker_child.TOO_LARGE:
        raise WorkRefused("its result is larger than it may be")
    result = pickle.loads(answer)  # noqa: S301 - from our own child, of our own uid
    if ended == worker_child.RETURNED:
        return result
    raise result if isinstance(result, Exception) else WorkRefused(result)


def _popen(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Nothing of our environment but what an interpreter needs: a job has no use for secrets. Its modules are ours."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    paths = [entry for entry in sys.path if os.path.isabs(entry)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", worker_child.__name__],
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**kept, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # a Ctrl-C at the terminal is the parent's to hear
    )
