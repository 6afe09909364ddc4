"""Durable flows, thin over DBOS: a step that finished is never done again, a flow goes on after a crash.

DBOS calls what we call a flow a workflow. Everything runs on the loop `launch` was called from.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import dbos._dbos as _dbos
import dbos._queue as _queue
import dbos._workflow_commands as _workflow_commands
from dbos import DBOS, DBOSConfig, SetWorkflowID, WorkflowStatusString

from tinyfat.engine.steps import Flow
from tinyfat.ports.ledger import StoreUnavailable

T = TypeVar("T")

# Pinned: by default DBOS derives it from the source, and every edit would orphan the flows under way. It changes only
# when a flow's steps change so that old ones cannot go on; then both versions run until the old one has drained.
APPLICATION_VERSION = "1"
HEARTBEAT_SECONDS = 5.0
BACKGROUND_SECONDS = 60.0
IDLE_SECONDS = 60.0  # between looks of DBOS for what we do not use
QUEUE_SECONDS = 3.0  # a recovered flow goes on so late
NOTIFY_SECONDS = 0.5  # also what a stop may take longer by
STALE_SECONDS = 20.0  # a process that was silent this long is dead
OUTAGE_SECONDS_MAX = 6 * 3600.0  # a step waits this long for a database that is away
OUTAGE_PAUSE_SECONDS_MAX = 2.0
DELETE_BATCH = 500
RECOVERIES_MAX = (
    100_000  # a flow that waits for a slow turn sees every restart of its process; that is no fault of its own
)

_BROKEN = [
    WorkflowStatusString.ERROR.value,
    WorkflowStatusString.CANCELLED.value,
    WorkflowStatusString.MAX_RECOVERY_ATTEMPTS_EXCEEDED.value,
]
_ENDED = [WorkflowStatusString.SUCCESS.value, *_BROKEN]

log = logging.getLogger(__name__)


class Executors(Protocol):
    async def beat(self, executor_id: str) -> None: ...
    def dead(self, own_id: str, stale_seconds: float) -> AbstractAsyncContextManager[list[str]]: ...


class Engine:
    """One for each process. `executor_id` must be this process's alone while it lives, and the same after a restart."""

    def __init__(self, database_url: str, executor_id: str, executors: Executors) -> None:
        self._executor_id = executor_id
        self._executors = executors
        self._flows: dict[str, Callable[[str], Any]] = {}
        config: DBOSConfig = {
            "name": "tinyfat",
            "system_database_url": database_url,
            "application_version": APPLICATION_VERSION,
            "executor_id": executor_id,
            "sys_db_pool_size": 8,
            "log_level": "ERROR",
            "notification_listener_polling_interval_sec": 5.0,
            # Wakes a thread so often, to send messages between flows: ours send none.
            "notification_coalesce_sec": NOTIFY_SECONDS,
            "scheduler_polling_interval_sec": IDLE_SECONDS,  # nor are any of ours scheduled
            "max_executor_threads": 32,
        }
        DBOS(config=config)
        # Private, like `_recover_pending_workflows` below: once a second it looks for delayed flows and for flows past
        # a timeout, and we have neither. Idle, that was a third of what the engine cost.
        _workflow_commands._BACKGROUND_JOBS_INTERVAL_SEC = BACKGROUND_SECONDS
        # Private too: it reads the list of queues once a second to begin a thread for each. Ours is one, its own.
        _dbos.queue_thread = _internal_queue_thread  # type: ignore[attr-defined]
        self._beat: asyncio.Task[None] | None = None

    def flow(self, name: str, run: Flow) -> None:
        """Make a flow known by a name that never changes again. Before `launch`."""

        @DBOS.workflow(name=name, max_recovery_attempts=RECOVERIES_MAX)
        async def workflow(subject: str) -> None:
            await run(_DurableSteps(), subject)

        self._flows[name] = workflow

    async def launch(self) -> None:
        """Our own unfinished flows go on at once; those of dead processes when they are found dead."""
        await self._executors.beat(self._executor_id)
        DBOS.launch()
        self._beat = asyncio.create_task(self._keep_beating(), name="heartbeat")

    async def close(self) -> None:
        if self._beat:
            self._beat.cancel()
            with suppress(asyncio.CancelledError):
                await self._beat
        # DBOS made its own thread pool the loop's, and shuts it down: what comes after needs another one.
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="after-dbos")
        await loop.run_in_executor(pool, lambda: DBOS.destroy(destroy_registry=True))
        loop.set_default_executor(pool)

    async def start(self, flow: str, flow_id: str, subject: str) -> None:
        async def begin() -> None:
            with SetWorkflowID(flow_id):
                await DBOS.start_workflow_async(self._flows[flow], subject)

        # In a context of its own: a flow that starts another is not its parent, and does not wait for it.
        await asyncio.get_running_loop().create_task(begin(), context=contextvars.Context())

    async def broken(self, flow_id: str) -> bool:
        status = await DBOS.get_workflow_status_async(flow_id)
        return status is not None and status.status in _BROKEN

    async def forget_finished(self, days: int) -> bool:
        """Delete records of flows that ended so many days ago, DELETE_BATCH of them at most; whether there may be more.
        The ledger, not the engine, is what people read."""
        before = datetime.now(UTC) - timedelta(days=days)
        old = await DBOS.list_workflows_async(
            status=_ENDED, completed_before=before.isoformat(), limit=DELETE_BATCH, load_input=False, load_output=False
        )
        if old:
            await DBOS.delete_workflows_async([status.workflow_id for status in old])
        return len(old) >= DELETE_BATCH

    async def _keep_beating(self) -> None:
        while True:
            try:
                await self._executors.beat(self._executor_id)
                await self._take_over()
            except StoreUnavailable:
                log.warning("the database does not answer; trying again")
            except Exception:
                log.exception("taking over the flows of dead processes failed; trying again")
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _take_over(self) -> None:
        async with self._executors.dead(self._executor_id, STALE_SECONDS) as dead:
            if dead:
                log.warning("taking over the flows of %s", ", ".join(dead))
                # Private, so the minor version is pinned and tests/faults kills for it: DBOS sells this as a service.
                await asyncio.to_thread(DBOS._recover_pending_workflows, dead)


def _internal_queue_thread(stop_event: threading.Event, dbos: DBOS) -> None:
    queue = dbos._registry.get_internal_queue()
    queue._polling_interval_sec = QUEUE_SECONDS
    _queue.queue_worker_thread(stop_event, dbos, queue)


class _DurableSteps:
    async def run(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        async def patient() -> T:
            return await _through_outages(name, work)

        return await DBOS.run_step_async({"name": name}, patient)

    async def again(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        return await _through_outages(name, work)


async def _through_outages(name: str, work: Callable[[], Awaitable[T]]) -> T:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + OUTAGE_SECONDS_MAX
    pause = 0.1
    while True:
        try:
            return await work()
        except StoreUnavailable:
            if loop.time() > deadline:
                raise
            log.warning("step %r waits for the database", name)
            await asyncio.sleep(pause)
            pause = min(pause * 2, OUTAGE_PAUSE_SECONDS_MAX)
