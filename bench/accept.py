"""Mails a second made durable: ours against Postfix (local queue, fsync), the same client, in turns.

Neither side answers what it takes: Postfix puts each mail on HOLD; ours is over its sender's rate after the first one
and holds the rest. Afterwards every 250 is looked up in the ledger of whoever said it.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from tests.running import TinyFat

from bench.figures import Figure, compared
from bench.postfix import Postfix
from bench.sink import Sink, reply_to
from bench.smtp_client import Connection, Letters, connections
from tinyfat.store.embedded import EmbeddedPostgres

AT_ONCE = (1, 8, 32)
ROUNDS = 5
FIRST_REPLY_SECONDS_MAX = 60.0

_KEPT = """
select count(*) from messages join message_bodies on message_row = id
where id = any(%s::uuid[]) and size = octet_length(raw)
"""


class Missing(Exception):
    """A mail was said to be kept and is not there."""


@dataclass(slots=True)
class Side:
    name: str
    port: int
    found: Callable[[Sequence[str]], Awaitable[int]]  # how many of the mails, named as the 250 named them, are there
    kept: list[str] = field(default_factory=list)


async def measure(folder: Path, seconds: float, with_peer: bool) -> list[Figure]:
    """`seconds`: for each side at each number of connections. Raises Missing."""
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(Sink())
        sides = [await _ours(stack, folder, sink)]
        if with_peer:
            sides.append(await _postfix(stack, folder))
        figures = [await _level(sides, at_once, seconds / ROUNDS) for at_once in AT_ONCE]
        for side in sides:
            await _check(side)
        return figures


async def _ours(stack: AsyncExitStack, folder: Path, sink: Sink) -> Side:
    tinyfat = TinyFat(
        folder / "accept", TINYFAT_SMARTHOST=f"127.0.0.1:{sink.port}", TINYFAT_MAIL_RATE_SENDER="1"
    )  # fmt: skip
    await stack.enter_async_context(tinyfat)
    await tinyfat.make_agent("ada")
    message_id, raw = Letters(secrets.token_hex(4)).next()
    expected = sink.expect(message_id)
    async with connections(tinyfat.smtp_port, 1) as (connection,):
        await connection.deliver(raw)
    await reply_to(expected, message_id, FIRST_REPLY_SECONDS_MAX)  # from here on everything is held

    async def found(names: Sequence[str]) -> int:
        url = EmbeddedPostgres(tinyfat.home).url
        async with await psycopg.AsyncConnection.connect(url) as connection:
            row = await (await connection.execute(_KEPT, (list(names),))).fetchone()
            assert row is not None
            return int(row[0])

    return Side("ours", tinyfat.smtp_port, found)


async def _postfix(stack: AsyncExitStack, folder: Path) -> Side:
    holding = {"relay_domains": "tinyfat.localhost", "smtpd_client_restrictions": "check_client_access static:HOLD"}
    postfix = await stack.enter_async_context(Postfix(folder / "holding", holding))

    async def found(names: Sequence[str]) -> int:
        held = {file.name for file in (postfix.queue / "hold").iterdir()}
        return len(held.intersection(names))

    return Side("Postfix", postfix.port, found)


async def _level(sides: Sequence[Side], at_once: int, seconds: float) -> Figure:
    rates: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(ROUNDS):
        for side in sides:
            rates[side.name].append(await _round(side, at_once, seconds))
        last = ", ".join(f"{name} {rate[-1]:.0f}" for name, rate in rates.items())
        print(f"accept, {at_once} at once, round {number + 1} of {ROUNDS}: {last} mails/s", file=sys.stderr)
    return compared(f"mails accepted, {at_once} at once", "mails/s", rates["ours"], rates.get("Postfix", ()))


async def _round(side: Side, at_once: int, seconds: float) -> float:
    """Mails a second, from the first command to the last 250."""
    letters = Letters(secrets.token_hex(4))
    async with connections(side.port, at_once) as opened:
        before = len(side.kept)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for connection in opened:
                group.create_task(_keep_sending(connection, letters, began + seconds, side.kept))
        return (len(side.kept) - before) / (time.perf_counter() - began)


async def _keep_sending(connection: Connection, letters: Letters, until: float, kept: list[str]) -> None:
    while time.perf_counter() < until:
        taken = await connection.deliver(letters.next()[1])
        kept.append(taken.words.split()[-1])  # both name what they kept at the end of the line


async def _check(side: Side) -> None:
    found = await side.found(side.kept)
    if found != len(set(side.kept)) or found != len(side.kept):
        raise Missing(f"{side.name} said 250 to {len(side.kept)} mails; {found} are in its ledger")
    print(f"accept: {side.name} said 250 to {found} mails; every one is in its ledger", file=sys.stderr)
