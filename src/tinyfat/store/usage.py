"""The usage ledger over Postgres: each method is one statement, a call of a function of migrations/0002_usage.sql.

A batch goes as one JSON argument: one statement, one commit, one round trip for all of it.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from tinyfat.domain.usage import DOLLARS_MAX, NANODOLLARS_PER_DOLLAR, TOKENS_MAX, Refusal, Standing, refusal_words
from tinyfat.ports.ledger import NotFound, StoreUnavailable
from tinyfat.ports.usage import Held, Refused, Reservation, Settlement, Spend
from tinyfat.store.budgets import caps_of
from tinyfat.store.database import Connection, Database, storable

RELAY_CONNECTIONS_MAX = 4  # the writers of one process: each holds an agent's row for a fraction of a millisecond
CALL_SECONDS_MAX = 2 * 3600.0  # no call lasts longer: an older hold was forgotten by its process and is swept
SWEPT_AT_ONCE = 500
TURN_KEPT_SECONDS = 7 * 24 * 3600.0  # a turn that called nothing for so long is over
UNKNOWN_ENDS_MAX = 10_000  # kept for when the database is back; what is more, the sweep finds
WORD_CHARS_MAX = 200  # of what a box or a client says: turn, conversation, alias
AMOUNT_MAX = DOLLARS_MAX * NANODOLLARS_PER_DOLLAR

_RESERVE = (
    "select place, agent_id, agent_name, byok_vendor, refusal, cap, spent, reserved "
    "from usage_reserve(%s, %s::jsonb, %s) order by place"
)
_SPEND = (
    "select t.month_spent, t.reserved, t.month_calls, t.month_cap, t.day_cap, t.turn_cap, t.turn_calls, t.killed, "
    "t.month_included from budgets b, budget_on(b, (coalesce(%s::timestamptz, now()) at time zone 'utc')::date) t "
    "where b.agent_id = %s"
)


def relay_database(url: str) -> Database:
    """For a UsageStore: each statement its own commit."""
    return Database(url, RELAY_CONNECTIONS_MAX)


class UsageStore:
    """ports.usage.UsageLedger. `executor_id` names this life of this process alone: a relay that starts again is
    another one, so that what the first left is swept. Call `beat` before the first reservation and every few seconds.

    `clock` is for tests; without it the database's own clock counts, the same for every relay.
    """

    def __init__(self, database: Database, executor_id: str, clock: Callable[[], datetime] | None = None) -> None:
        self._database = database
        self._executor_id = executor_id
        self._clock = clock
        self._unsettled: OrderedDict[str, Settlement] = OrderedDict()
        self._unreleased: OrderedDict[str, None] = OrderedDict()

    async def reserve(self, reservations: list[Reservation]) -> list[Held | Refused]:
        """Raises StoreUnavailable: then nothing may be called; what was perhaps held, a later beat releases."""
        if not reservations:
            return []
        if lost := [one.call_id for one in reservations if one.call_id in self._unreleased]:
            # A beat may be releasing it at this moment: held again, it would be a call that nobody pays for.
            raise StoreUnavailable(f"The answer to call {lost[0]} was lost; ask again under another id.")
        batch = json.dumps([_asked(one) for one in reservations])
        try:
            async with self._statement() as connection:
                cursor = await connection.execute(_RESERVE, (self._executor_id, batch, self._now()), prepare=True)
                rows = await cursor.fetchall()
        except StoreUnavailable:
            self._keep(self._unreleased, {one.call_id: None for one in reservations})
            raise
        return [_verdict(one, row) for one, row in zip(reservations, rows, strict=True)]

    async def settle(self, settlements: list[Settlement]) -> None:
        """Raises StoreUnavailable: then a later beat settles them, or, where this process dies first, the sweep."""
        if not settlements:
            return
        try:
            await self._settle(settlements)
        except StoreUnavailable:
            self._keep(self._unsettled, {one.call_id: one for one in settlements})
            raise

    async def release(self, call_ids: list[str]) -> None:
        """Raises StoreUnavailable: then a later beat releases them."""
        if not call_ids:
            return
        try:
            await self._release(call_ids)
        except StoreUnavailable:
            self._keep(self._unreleased, dict.fromkeys(call_ids))
            raise

    async def sweep(self, older_than_seconds: float) -> int:
        """Also what is older than CALL_SECONDS_MAX, whoever holds it. At most SWEPT_AT_ONCE."""
        async with self._statement() as connection:
            cursor = await connection.execute(
                "select usage_sweep(%s, %s, %s, %s)",
                (older_than_seconds, CALL_SECONDS_MAX, SWEPT_AT_ONCE, self._now()),
            )
            row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def spend(self, agent_id: str) -> Spend:
        """Raises NotFound."""
        async with self._statement() as connection:
            cursor = await connection.execute(_SPEND, (self._now(), agent_id), prepare=True)
            row = await cursor.fetchone()
        if row is None:
            raise NotFound(f"The agent {agent_id} has no budget; `tinyfat agent list` shows the agents there are.")
        return Spend(row[0], row[1], row[2], caps_of(*row[3:]))

    async def beat(self) -> None:
        """Say that this process lives, and end what could not be ended while the database was away."""
        async with self._statement() as connection:
            await connection.execute(
                "insert into executors (id) values (%s) on conflict (id) do update set heartbeat_at = now()",
                (self._executor_id,),
            )
        if self._unreleased:
            call_ids = list(self._unreleased)
            await self._release(call_ids)
            _forget(self._unreleased, call_ids)
        if self._unsettled:
            settlements = list(self._unsettled.values())
            await self._settle(settlements)
            _forget(self._unsettled, [one.call_id for one in settlements])

    async def leave(self) -> None:
        """An orderly end: what is still held, is held by nobody from now on."""
        async with self._statement() as connection:
            await connection.execute("delete from executors where id = %s", (self._executor_id,))

    async def forget_turns(self) -> int:
        """The sums of turns that have long ended; their calls stay. Returns how many."""
        async with self._statement() as connection:
            cursor = await connection.execute(
                "delete from turn_sums where reserved = 0 and at < coalesce(%s, now()) - make_interval(secs => %s)",
                (self._now(), TURN_KEPT_SECONDS),
            )
        return cursor.rowcount

    async def _settle(self, settlements: Sequence[Settlement]) -> None:
        batch = json.dumps([_ended(one) for one in settlements])
        async with self._statement() as connection:
            await connection.execute("select usage_settle(%s::jsonb, %s)", (batch, self._now()), prepare=True)

    async def _release(self, call_ids: list[str]) -> None:
        async with self._statement() as connection:
            await connection.execute("select usage_release(%s::uuid[])", (call_ids,), prepare=True)

    def _statement(self) -> AbstractAsyncContextManager[Connection]:
        return self._database.connection()

    def _now(self) -> datetime | None:
        return self._clock() if self._clock else None

    def _keep(self, kept: OrderedDict[str, Any], new: dict[str, Any]) -> None:
        kept.update(new)
        while len(kept) > UNKNOWN_ENDS_MAX:
            kept.popitem(last=False)


def _forget(kept: OrderedDict[str, Any], call_ids: Sequence[str]) -> None:
    for call_id in call_ids:
        kept.pop(call_id, None)


def _asked(one: Reservation) -> dict[str, Any]:
    """Raises ValueError where the relay itself asks for what cannot be; a word of a client's is cut, not refused."""
    if not 0 <= one.amount <= AMOUNT_MAX:
        raise ValueError(f"Call {one.call_id}: {one.amount} nano-dollars cannot be reserved.")
    return {
        "call_id": one.call_id,
        "key": one.key_hash.hex(),
        "amount": one.amount,
        "surface": one.surface,
        "alias": _word(one.alias),
        "vendor": one.vendor,
        "model": one.model,
        "pi": one.price.input,
        "po": one.price.output,
        "pc": one.price.cached,
        "pw": one.price.cache_written,
        "ph": one.price.hour,
        "source": one.price.source,
        "turn": _word(one.turn),
        "conversation": _word(one.conversation),
    }


def _ended(one: Settlement) -> dict[str, Any]:
    """A vendor's counts are bounded: a wild one must not stop the ledger for everyone else in the batch."""
    usage = one.usage
    row: dict[str, Any] = {
        "call_id": one.call_id,
        "input": _tokens(usage.input),
        "output": _tokens(usage.output),
        "cached": _tokens(usage.cached),
        "written": _tokens(usage.cache_written),
        "hour": _tokens(usage.cache_written_1h),
        "reasoning": _tokens(usage.reasoning),
        "estimated": usage.estimated,
        "latency": max(0, one.latency_ms),
        "outcome": one.outcome,
        "vendor": storable(one.vendor),
        "model": storable(one.model),
    }
    if one.price is not None:
        price = one.price
        row |= {"pi": price.input, "po": price.output, "pc": price.cached, "pw": price.cache_written, "ph": price.hour}
        row["source"] = price.source
    return row


def _verdict(asked: Reservation, row: tuple[Any, ...]) -> Held | Refused:
    _, agent_id, agent_name, byok_vendor, refusal, cap, spent, reserved = row
    if refusal is None:
        return Held(asked.call_id, str(agent_id), byok_vendor)
    why = Refusal(refusal)
    standing = Standing(cap or 0, spent or 0, reserved or 0, asked.amount)
    words = refusal_words(why, agent_name or "", standing)
    return Refused(why, str(agent_id) if agent_id else "", words)


def _word(text: str) -> str:
    return storable(text[:WORD_CHARS_MAX])


def _tokens(count: int) -> int:
    return min(max(count, 0), TOKENS_MAX)
