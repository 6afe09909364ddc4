"""Streamed calls through the relay, beside the vendor called directly, a bare pass-through, and LiteLLM's proxy.

The relay is `tinyfat serve relay` in a process of its own, caps and ledger on, over the embedded Postgres.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.running import free_port, until

from bench import litellm_peer
from bench.figures import Figure
from tinyfat.domain.relay_keys import key_from
from tinyfat.domain.usage import MANAGED_CAPS, NANODOLLARS_PER_DOLLAR, Caps
from tinyfat.store.budgets import BudgetStore
from tinyfat.store.database import Database
from tinyfat.store.embedded import EmbeddedPostgres
from tinyfat.store.keys import KeyStore

ROUNDS = 3
START_SECONDS_MAX = 60.0
AT_ONCE = 32
ADDED_P50_MS_MAX = 1.5
SHARE_OF_BARE_MIN = 0.6
TIMES_LITELLM_MIN = 20.0
RSS_MB_MAX = 120.0
KEY = key_from(b"bench".ljust(32))


@dataclass(frozen=True, slots=True)
class Load:
    rate: float  # calls a second
    p50: float  # ms
    p99: float  # ms
    failed: int


async def measure(folder: Path, seconds: float) -> list[Figure]:
    """Rounds in turns, `seconds` for all of them."""
    each = max(1.0, seconds / ROUNDS / 8)
    async with AsyncExitStack() as stack:
        stub, bare, relay = free_port(), free_port(), free_port()
        await stack.enter_async_context(_process(stub, "bench.sse_stub", str(stub)))
        upstream = f"http://127.0.0.1:{stub}"
        await stack.enter_async_context(_process(bare, "bench.pass_through", str(bare), upstream))
        process = await stack.enter_async_context(_relay(folder, relay, upstream))
        ports = {"direct": stub, "bare": bare, "relay": relay}
        litellm, why_not = await litellm_peer.start(stack, upstream, KEY)
        if litellm:
            ports["litellm"] = litellm
        else:
            print(f"no ratio to LiteLLM: {why_not}", file=sys.stderr)
        one = await _rounds(ports, 1, each)
        many = await _rounds(ports, AT_ONCE, each)
        memory = psutil.Process(process.pid).memory_info().rss / 1e6
    return _figures(one, many, memory)


def _figures(one: Mapping[str, Load], many: Mapping[str, Load], memory: float) -> list[Figure]:
    failed = sum(load.failed for loads in (one, many) for name, load in loads.items() if name == "relay")
    share = many["bare"].rate / many["relay"].rate  # of `Figure`: smaller is better
    figures = [
        Figure("relay: p50 added to a call, 1 at once", "ms", one["relay"].p50 - one["direct"].p50,
               one["bare"].p50 - one["direct"].p50, goal=ADDED_P50_MS_MAX),
        Figure(f"relay: time of a call, {AT_ONCE} at once, to the bare one's", "x", share,
               goal=1 / SHARE_OF_BARE_MIN),
        Figure(f"relay: calls, {AT_ONCE} at once (peer: bare)", "/s", many["relay"].rate, many["bare"].rate,
               many["relay"].rate / many["bare"].rate),
        Figure(f"relay: calls, {AT_ONCE} at once (peer: direct)", "/s", many["relay"].rate, many["direct"].rate,
               many["relay"].rate / many["direct"].rate),
        Figure(f"relay: p99, {AT_ONCE} at once (peer: bare)", "ms", many["relay"].p99, many["bare"].p99),
        Figure("relay: memory under load", "MB", memory, goal=RSS_MB_MAX),
        Figure("relay: failed calls", "", failed, goal=0),
    ]  # fmt: skip
    if "litellm" in many:
        times = many["litellm"].rate / many["relay"].rate
        figures.append(Figure(f"relay: time of a call, {AT_ONCE} at once, to LiteLLM's", "x", times,
                              goal=1 / TIMES_LITELLM_MIN))  # fmt: skip
        figures.append(Figure(f"relay: calls, {AT_ONCE} at once (peer: LiteLLM)", "/s", many["relay"].rate,
                              many["litellm"].rate, many["relay"].rate / many["litellm"].rate))  # fmt: skip
    return figures


async def _rounds(ports: Mapping[str, int], at_once: int, seconds: float) -> dict[str, Load]:
    """In turns, so that what slows the machine slows all; of each the round with the median rate."""
    found: dict[str, list[Load]] = {name: [] for name in ports}
    for _ in range(ROUNDS):
        for name, port in ports.items():
            found[name].append(await _load(port, at_once, seconds))
    return {name: sorted(loads, key=lambda load: load.rate)[len(loads) // 2] for name, loads in found.items()}


async def _load(port: int, at_once: int, seconds: float) -> Load:
    arguments = (f"http://127.0.0.1:{port}", KEY, str(at_once), str(seconds))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.sse_load", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return Load(**json.loads(out))


@asynccontextmanager
async def _relay(folder: Path, port: int, upstream: str) -> AsyncIterator[asyncio.subprocess.Process]:
    home = folder / "relay"
    home.mkdir(mode=0o700)
    postgres = EmbeddedPostgres(home)
    await postgres.start()
    try:
        database = Database(postgres.url)
        await database.open()
        await database.migrate()
        await _agent(database)
        await database.close()
        environment = {
            "TINYFAT_HOME": str(home),
            "TINYFAT_DATABASE_URL": postgres.url,
            "TINYFAT_RELAY_LISTEN": f"127.0.0.1:{port}",
            "TINYFAT_MODELS": json.dumps([
                {"alias": "main", "vendor": "bench", "model": "bench", "url": f"{upstream}/v1",
                 "api": "openai-completions", "price_input": "0.3", "price_output": "1.2"}
            ]),
        }  # fmt: skip
        async with _process(port, "tinyfat", "serve", "relay", environment=environment) as process:
            yield process
    finally:
        await postgres.stop()


async def _agent(database: Database) -> None:
    agent_id = str(uuid.uuid4())
    async with database.transaction() as connection:
        await connection.execute(
            "insert into agents (id, name, owner, runtime, machine_kind, state) "
            "values (%s, 'bench', 'owner@example.org', 'echo', 'process', 'ready')",
            (agent_id,),
        )
    much = 100_000 * NANODOLLARS_PER_DOLLAR
    await BudgetStore(database).open(agent_id, Caps(much, much, MANAGED_CAPS.turn, MANAGED_CAPS.turn_calls))
    await KeyStore(database).add(agent_id, KEY)


@asynccontextmanager
async def _process(
    port: int, module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    command: Sequence[str] = (sys.executable, "-m", module, *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | (environment or {}), stdout=asyncio.subprocess.DEVNULL
    )

    async def answers() -> bool:
        assert process.returncode is None, f"{module} ended with {process.returncode}"
        return await listens(port)

    try:
        await until(answers, START_SECONDS_MAX, f"{module} listens")
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
