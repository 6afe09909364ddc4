"""The turn, with the echo runtime: what it costs beside the runtime's own time, and how many a second are sustained,
ours against a chain built by hand; the same client, the same runtime, the same smarthost, in turns."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.by_hand import by_hand
from bench.figures import Figure, compared, percentile
from bench.ours import Chain, ours
from bench.sink import Reply, Sink, reply_to
from bench.smtp_client import Connection, Letters, connections

MAILS_A_SECOND = 5.0
LATENCY_CONNECTIONS = 8
P50_MS_GOAL = 40.0
P99_MS_GOAL = 150.0
AT_ONCE = (1, 8, 32)
ROUNDS = 3
WARM_UP_TURNS = 20
REPLY_SECONDS_MAX = 120.0


async def measure(folder: Path, seconds: float, with_peer: bool) -> list[Figure]:
    """`seconds`: of latency for each side, then of turns for each side at each number at once. Raises ReplyLost."""
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(Sink())
        chains = [await stack.enter_async_context(ours(folder, sink))]
        if with_peer:
            chains.append(await stack.enter_async_context(by_hand(folder / "by-hand", sink)))
        for chain in chains:
            await _closed_loop(chain, sink, 4, turns_max=WARM_UP_TURNS)
        latencies = [await _latency(chain, sink, seconds) for chain in chains]
        levels = [await _level(chains, sink, at_once, seconds / ROUNDS) for at_once in AT_ONCE]
        return [*_latency_figures(latencies), *levels]


def _latency_figures(latencies: Sequence[Sequence[float]]) -> list[Figure]:
    figures = []
    for percent, goal in ((50, P50_MS_GOAL), (99, P99_MS_GOAL)):
        ours_ms, *peer_ms = [1000 * percentile(seconds, percent) for seconds in latencies]
        peer = peer_ms[0] if peer_ms else None
        what = f"added to a turn at {MAILS_A_SECOND:g} mails/s, p{percent}"
        figures.append(Figure(what, "ms", ours_ms, peer, ours_ms / peer if peer else None, goal))
    return figures


async def _latency(chain: Chain, sink: Sink, seconds: float) -> list[float]:
    """For each mail: from its final dot to the runtime's receipt, and from the runtime's answer to the smarthost."""
    letters = Letters(secrets.token_hex(4))
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with connections(chain.port, LATENCY_CONNECTIONS) as opened:
        free: asyncio.Queue[Connection] = asyncio.Queue()
        for connection in opened:
            free.put_nowait(connection)
        sending = []
        async with asyncio.TaskGroup() as group:
            for number in range(round(seconds * MAILS_A_SECOND)):
                await asyncio.sleep(max(0.0, began + number / MAILS_A_SECOND - loop.time()))
                sending.append(group.create_task(_one(free, sink, letters)))
        asked = [task.result() for task in sending]
    moments = chain.moments()
    added = []
    for question_id, sent_at, reply in asked:
        turn_id = chain.turn_id(question_id, reply)
        added.append(moments[turn_id, "received"] - sent_at + reply.at - moments[turn_id, "answered"])
    print(f"turns: {chain.name}: {len(added)} turns at {MAILS_A_SECOND:g} a second", file=sys.stderr)
    return added


async def _one(free: asyncio.Queue[Connection], sink: Sink, letters: Letters) -> tuple[str, float, Reply]:
    message_id, raw = letters.next()
    expected = sink.expect(message_id)
    connection = await free.get()
    taken = await connection.deliver(raw)
    free.put_nowait(connection)
    return message_id, taken.sent_at, await reply_to(expected, message_id, REPLY_SECONDS_MAX)


async def _level(chains: Sequence[Chain], sink: Sink, at_once: int, seconds: float) -> Figure:
    rates: dict[str, list[float]] = {chain.name: [] for chain in chains}
    for number in range(ROUNDS):
        for chain in chains:
            rates[chain.name].append(await _closed_loop(chain, sink, at_once, seconds))
        last = ", ".join(f"{name} {rate[-1]:.1f}" for name, rate in rates.items())
        print(f"turns, {at_once} at once, round {number + 1} of {ROUNDS}: {last} turns/s", file=sys.stderr)
    return compared(f"turns, {at_once} at once", "turns/s", rates["ours"], rates.get("by hand", ()))


async def _closed_loop(
    chain: Chain, sink: Sink, at_once: int, seconds: float = REPLY_SECONDS_MAX, turns_max: int = sys.maxsize
) -> float:
    """Turns a second; each of `at_once` senders waits for its reply before it writes again, always in a new thread."""
    letters = Letters(secrets.token_hex(4))
    answered = 0
    began = time.perf_counter()

    async def converse(connection: Connection) -> None:
        nonlocal answered
        while time.perf_counter() < began + seconds and answered < turns_max:
            message_id, raw = letters.next()
            expected = sink.expect(message_id)
            await connection.deliver(raw)
            await reply_to(expected, message_id, REPLY_SECONDS_MAX)
            answered += 1

    async with connections(chain.port, at_once) as opened, asyncio.TaskGroup() as group:
        for connection in opened:
            group.create_task(converse(connection))
    return answered / (time.perf_counter() - began)
