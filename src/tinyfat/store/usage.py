"""The usage ledger over Postgres: each method is one statement, a call of a function of migrations/0002_usage.sql, or
of one that came in its place.

A batch goes as one JSON argument: one statement, one commit, one round trip for all of it.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from tinyfat.domain.usage import AMOUNT_MAX, TOKENS_MAX, Refusal, Standing, refusal_words
from tinyfat.ports.ledger import NotFound, StoreUnavailable
from tinyfat.ports.usage import Held, Refused, Reservation, Settlement, Spend
from tinyfat.store.budgets import caps_of
from tinyfat.store.database import Connection, Database, OneConnection, storable

# The ledger's functions look up a few rows by their keys; the tables' statistics change by the second and say little.
_PLANS = (
    "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off "
    "-c plan_cache_mode=force_generic_plan"
)
CALL_SECONDS_MAX = 2 * 3600.0  # no call lasts longer: an older hold was forgotten by its process and is swept
SWEPT_AT_ONCE = 500
TURN_KEPT_SECONDS = 7 * 24 * 3600.0  # a turn that called nothing for so long is over
HOLDING_MAX = 10_000  # kept for when the database forgets them: more than calls at once
UNKNOWN_ENDS_MAX = 10_000  # kept for when the database is back; what is more, the sweep finds
WORD_CHARS_MAX = 200  # of what a box or a client says: turn, conversation, alias

_COMMIT = (
    "select place, agent_id::text, agent_name, byok_vendor, refusal, cap, spent, reserved, granted "
    "from usage_commit(%s, %s::jsonb, %s::jsonb, %s::uuid[], %s)"
)
_SETTLE_LOST = "select usage_settle_lost(%s, %s::jsonb, %s::jsonb, %s)"
_SPEND = (
    "select t.month_spent, t.reserved, t.month_calls, t.month_cap, t.day_cap, t.turn_cap, t.turn_calls, t.killed, "
    "t.month_included from budgets b, budget_on(b, (coalesce(%s::timestamptz, now()) at time zone 'utc')::date) t "
    "where b.agent_id = %s"
)


class UsageStore:
    """ports.usage.UsageLedger. `executor_id` names this life of this process alone: a relay that starts again is
    another one, so that what the first left is swept. Call `beat` before the first reservation and every few seconds.

    `clock` is for tests; without it the database's own clock counts, the same for every relay.
    """

    def __init__(self, database: Database, executor_id: str, clock: Callable[[], datetime] | None = None) -> None:
        self._commits = OneConnection(database.url, _PLANS)
        self._database = database
        self._executor_id = executor_id
        self._clock = clock
        # Until they are settled or released; and by which of the connections they were held.
        self._holding: OrderedDict[str, tuple[Reservation, Held, int]] = OrderedDict()
        self._unsettled: OrderedDict[str, Settlement] = OrderedDict()
        self._unreleased: OrderedDict[str, None] = OrderedDict()

    async def commit(
        self,
        reservations: Sequence[Reservation] = (),
        settlements: Sequence[Settlement] = (),
        releases: Sequence[str] = (),
    ) -> list[Held | Refused]:
        """What ended is on disk when it returns. What was only held may not be for another moment, but never comes
        after its own end: docs/decisions/0013.

        Raises StoreUnavailable: then nothing may be called; what was perhaps held, a later beat releases, and what
        ended, a later beat settles, or, where this process dies first, the sweep."""
        if not (reservations or settlements or releases):
            return []
        try:
            rows = await self._commit(reservations, settlements, releases)
        except StoreUnavailable:
            unreleased = dict.fromkeys([*releases, *(one.call_id for one in reservations)])
            _keep(self._unreleased, unreleased, UNKNOWN_ENDS_MAX)
            _keep(self._unsettled, {one.call_id: one for one in settlements}, UNKNOWN_ENDS_MAX)
            raise
        verdicts = [_verdict(one, row) for one, row in zip(reservations, rows, strict=True)]
        made = self._commits.made
        told = zip(reservations, verdicts, strict=True)
        held = {one.call_id: (one, verdict, made) for one, verdict in told if isinstance(verdict, Held)}
        _keep(self._holding, held, HOLDING_MAX)
        return verdicts

    async def reserve(self, reservations: Sequence[Reservation]) -> list[Held | Refused]:
        return await self.commit(reservations)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await self.commit(settlements=settlements)

    async def release(self, call_ids: Sequence[str]) -> None:
        await self.commit(releases=call_ids)

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
        unreleased, unsettled = list(self._unreleased), list(self._unsettled.values())
        if unreleased or unsettled:
            await self._commit((), unsettled, unreleased)
            _forget(self._unreleased, unreleased)
            _forget(self._unsettled, [one.call_id for one in unsettled])

    async def leave(self) -> None:
        """An orderly end: what is still held, is held by nobody from now on. Raises StoreUnavailable."""
        await self.close()
        async with self._statement() as connection:
            await connection.execute("delete from executors where id = %s", (self._executor_id,))

    async def close(self) -> None:
        """Its own connection; the next commit would make another."""
        await self._commits.close()

    async def forget_turns(self) -> int:
        """The sums of turns that have long ended; their calls stay. Returns how many."""
        async with self._statement() as connection:
            cursor = await connection.execute(
                "delete from turn_sums where reserved = 0 and at < coalesce(%s, now()) - make_interval(secs => %s)",
                (self._now(), TURN_KEPT_SECONDS),
            )
        return cursor.rowcount

    async def _commit(
        self, reservations: Sequence[Reservation], settlements: Sequence[Settlement], releases: Sequence[str]
    ) -> list[tuple[Any, ...]]:
        """In the order of the reservations."""
        if lost := [one.call_id for one in reservations if one.call_id in self._unreleased]:
            # A beat may be releasing it at this moment: held again, it would be a call that nobody pays for.
            raise StoreUnavailable(f"The answer to call {lost[0]} was lost; ask again under another id.")
        asked = json.dumps([_asked(one) for one in reservations]) if reservations else None
        ended = json.dumps([_ended(one) for one in settlements]) if settlements else None
        batch = (self._executor_id, asked, ended, list(releases) or None, self._now())
        rows = sorted(await self._commits.fetch(_COMMIT, batch))
        if rows and rows[0][0] == 0:
            del rows[0]
            await self._settle_lost(settlements)
        _forget(self._holding, [*(one.call_id for one in settlements), *releases])
        return rows

    async def _settle_lost(self, settlements: Sequence[Settlement]) -> None:
        """Not all of their holds were there. A database that dies ends every connection to it: what was held by an
        earlier one may have been forgotten with it."""
        made = self._commits.made
        held = [self._holding.get(one.call_id) for one in settlements]
        lost = [(one, end) for one, end in zip(held, settlements, strict=True) if one is not None and one[2] != made]
        if lost:
            holds = json.dumps([_lost(asked, verdict) for (asked, verdict, _), _ in lost])
            ends = json.dumps([_ended(end) for _, end in lost])
            await self._commits.fetch(_SETTLE_LOST, (self._executor_id, holds, ends, self._now()))

    def _statement(self) -> AbstractAsyncContextManager[Connection]:
        return self._database.connection()

    def _now(self) -> datetime | None:
        return self._clock() if self._clock else None


def _keep(kept: OrderedDict[str, Any], new: dict[str, Any], most: int) -> None:
    kept.update(new)
    while len(kept) > most:
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
        "table_vendor": one.table_vendor,
        "owner_vendor": one.owner_vendor,
        "least": one.least,
        "quiet": one.quiet,
    }


def _lost(asked: Reservation, held: Held) -> dict[str, Any]:
    return _asked(asked) | {"agent": held.agent_id, "byok_vendor": held.byok_vendor, "amount": held.amount}


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
    _, agent_id, agent_name, byok_vendor, refusal, cap, spent, reserved, granted = row
    if refusal is None:
        return Held(asked.call_id, agent_id, byok_vendor, granted)
    why = Refusal(refusal)
    standing = Standing(cap or 0, spent or 0, reserved or 0, asked.amount)
    words = refusal_words(why, agent_name or "", standing)
    return Refused(why, agent_id or "", words, byok_vendor or "")


def _word(text: str) -> str:
    return storable(text[:WORD_CHARS_MAX])


def _tokens(count: int) -> int:
    return min(max(count, 0), TOKENS_MAX)
