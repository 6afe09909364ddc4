"""What the control plane with the embedded database costs while nothing happens, one echo agent on the line; and who
asks the database what, how often: the statements counted in its log after the processor's time was taken."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
from tests.running import TinyFat

from bench.figures import Figure
from tinyfat.store.embedded import EmbeddedPostgres

SETTLE_SECONDS = 75.0  # after its start: DBOS looks around more often in its first minute
MEMORY_MB_GOAL = 150.0
CPU_PERCENT_GOAL = 1.0
WATCH_SECONDS = 30.0  # for the statements
SHOWN_MAX = 20
MB = 1e6


async def measure(folder: Path, seconds: float) -> list[Figure]:
    """`seconds`: of looking at the processor's time, after SETTLE_SECONDS of rest."""
    async with TinyFat(folder / "idle") as tinyfat:
        started = time.monotonic()
        await tinyfat.make_agent("ada")
        print(f"idle: resting for {SETTLE_SECONDS:.0f} s, then looking for {seconds:.0f} s ...", file=sys.stderr)
        await asyncio.sleep(max(0.0, started + SETTLE_SECONDS - time.monotonic()))
        assert tinyfat.process is not None
        plane = psutil.Process(tinyfat.process.pid)
        database = EmbeddedPostgres(tinyfat.home).process()
        assert database is not None
        before = cpu_seconds(plane), database_cpu_seconds(database)
        began = time.monotonic()
        await asyncio.sleep(seconds)
        elapsed = time.monotonic() - began
        after = cpu_seconds(plane), database_cpu_seconds(database)
        print(await _who_polls(tinyfat.home), file=sys.stderr)
        own, theirs = plane.memory_full_info().pss / MB, _proportional_bytes(database) / MB
    own_cpu, their_cpu = (100 * (late - early) / elapsed for early, late in zip(before, after, strict=True))
    return [
        Figure("memory, control plane and database", "MB", own + theirs, goal=MEMORY_MB_GOAL),
        Figure("  of it the control plane (PSS)", "MB", own),
        Figure("  of it Postgres (PSS)", "MB", theirs),
        Figure("processor, control plane and database", "% of a core", own_cpu + their_cpu, goal=CPU_PERCENT_GOAL),
        Figure("  of it the control plane", "% of a core", own_cpu),
        Figure("  of it Postgres", "% of a core", their_cpu),
    ]


def cpu_seconds(process: psutil.Process) -> float:
    spent = process.cpu_times()
    return spent.user + spent.system


def database_cpu_seconds(database: psutil.Process) -> float:
    """Of the postmaster, its living children and, by the kernel's account of them, the children that ended."""
    ended = database.cpu_times()
    living = 0.0
    for process in [database, *database.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # an autovacuum worker lives for a moment
            living += cpu_seconds(process)
    return living + ended.children_user + ended.children_system


def _proportional_bytes(database: psutil.Process) -> int:
    """PSS: what is shared (the buffers) counts once, divided among those that share it."""
    found = 0
    for process in [database, *database.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            found += process.memory_full_info().pss
    return found


async def _who_polls(home: Path) -> str:
    """Every statement of a while, most frequent first."""
    log = home / "postgres.log"
    async with await psycopg.AsyncConnection.connect(
        f"host={home} user=tinyfat dbname=postgres", autocommit=True
    ) as connection:
        await connection.execute("alter system set log_statement = 'all'")
        await connection.execute("select pg_reload_conf()")
        before = log.stat().st_size
        await asyncio.sleep(WATCH_SECONDS)
        await connection.execute("alter system reset log_statement")
        await connection.execute("select pg_reload_conf()")
    said = log.read_bytes()[before:].decode(errors="replace")
    found = Counter(
        re.sub(r"\s+", " ", match[1])[:90] for match in re.finditer(r"(?:statement|execute [^:]*): ([^\n]*)", said)
    )
    rows = [f"  {60 * count / WATCH_SECONDS:6.0f} a minute  {text}" for text, count in found.most_common(SHOWN_MAX)]
    return "\n".join([f"idle: {60 * found.total() / WATCH_SECONDS:.0f} statements a minute:", *rows])
