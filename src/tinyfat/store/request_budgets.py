"""Budgets of requests and remembered shortages, one of each account for all processes on this database."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tinyfat.domain.request_limits import Bucket, RequestLimit
from tinyfat.domain.shortages import Shortage, probed, short_again
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.requests import RequestBudget, Shortages
from tinyfat.store.database import Connection, Database

Clock = Callable[[], float]

log = logging.getLogger(__name__)


class StoredBudget:
    """Implements ports/requests RequestBudget. Without the database this process goes by `alone`, for an end that
    costs money while it goes on does not wait for it."""

    def __init__(
        self, database: Database, account: str, limit: RequestLimit, alone: RequestBudget, clock: Clock | None = None
    ) -> None:
        """`clock`: Unix seconds; None: the database's, which is one for all processes."""
        self._database, self._account, self._limit = database, account, limit
        self._alone, self._clock = alone, clock

    async def take(self, ending: bool, more: int = 0, left: float | None = None) -> tuple[float, float]:
        try:
            async with self._database.transaction() as connection:
                bucket, now = await self._locked(connection)
                bucket = bucket.refilled(self._limit, now).corrected(self._limit, more, left)
                bucket, wait = bucket.take(self._limit, now, ending)
                await self._keep(connection, bucket)
        except StoreUnavailable:
            log.warning("the database does not answer: requests to %s are counted by this process alone", self._account)
            return await self._alone.take(ending, more, left)
        return wait, bucket.tokens / self._limit.capacity

    async def refused(self, seconds: float) -> None:
        await self._alone.refused(seconds)
        try:
            async with self._database.transaction() as connection:
                bucket, now = await self._locked(connection)
                await self._keep(connection, bucket.refused(now, seconds))
        except StoreUnavailable:
            log.warning("the database does not answer: only this process knows that %s wants a pause", self._account)

    async def _locked(self, connection: Connection) -> tuple[Bucket, float]:
        """Made full where it is not there; nobody else takes until this transaction ends."""
        now = self._clock() if self._clock else None
        cursor = await connection.execute(
            "insert into request_budgets as b (account, tokens, at) "
            "values (%s, %s, coalesce(%s, extract(epoch from clock_timestamp()))) "
            "on conflict (account) do update set account = b.account "
            "returning tokens, at, paused_until, coalesce(%s, extract(epoch from clock_timestamp()))::float8",
            (self._account, self._limit.capacity, now, now),
        )
        row = await cursor.fetchone()
        assert row is not None
        return Bucket(*row[:3]), row[3]

    async def _keep(self, connection: Connection, bucket: Bucket) -> None:
        await connection.execute(
            "update request_budgets set tokens = %s, at = %s, paused_until = %s where account = %s",
            (bucket.tokens, bucket.at, bucket.paused_until, self._account),
        )


class StoredShortages:
    """Implements ports/requests Shortages. Without the database as `alone` says."""

    def __init__(self, database: Database, account: str, alone: Shortages, clock: Clock | None = None) -> None:
        self._database, self._account, self._alone, self._clock = database, account, alone, clock

    async def known(self) -> dict[str, float]:
        try:
            async with self._database.connection() as connection:
                now = await self._now(connection)
                cursor = await connection.execute(
                    "select thing, until from shortages where account = %s", (self._account,)
                )
                return {row[0]: max(0.0, row[1] - now) for row in await cursor.fetchall()}
        except StoreUnavailable:
            return await self._alone.known()

    async def probe(self, thing: str) -> bool:
        try:
            async with self._database.transaction() as connection:
                known, now = await self._locked(connection, thing)
                if known is None or known.until > now:
                    return known is None
                await self._keep(connection, thing, probed(known, now))
                return True
        except StoreUnavailable:
            return await self._alone.probe(thing)

    async def short(self, thing: str) -> None:
        await self._alone.short(thing)
        try:
            async with self._database.transaction() as connection:
                known, now = await self._locked(connection, thing)
                await self._keep(connection, thing, short_again(known, now))
        except StoreUnavailable:
            log.warning("the database does not answer: only this process knows that there is no %s", thing)

    async def there(self, thing: str) -> None:
        await self._alone.there(thing)
        try:
            async with self._database.connection() as connection:
                await connection.execute(
                    "delete from shortages where account = %s and thing = %s", (self._account, thing)
                )
        except StoreUnavailable:
            log.warning("the database does not answer: that there is a %s again is noticed later", thing)

    async def _locked(self, connection: Connection, thing: str) -> tuple[Shortage | None, float]:
        cursor = await connection.execute(
            "select until, pause, probing from shortages where account = %s and thing = %s for update",
            (self._account, thing),
        )
        row = await cursor.fetchone()
        return (Shortage(*row) if row else None), await self._now(connection)

    async def _keep(self, connection: Connection, thing: str, one: Shortage) -> None:
        await connection.execute(
            "insert into shortages (account, thing, until, pause, probing) values (%s, %s, %s, %s, %s) "
            "on conflict (account, thing) do update set until = excluded.until, pause = excluded.pause, "
            "probing = excluded.probing",
            (self._account, thing, one.until, one.pause, one.probing),
        )

    async def _now(self, connection: Connection) -> float:
        if self._clock is not None:
            return self._clock()
        row = await (await connection.execute("select extract(epoch from clock_timestamp())::float8")).fetchone()
        assert row is not None
        return float(row[0])


class StoredLimits:
    """Implements ports/requests SharedLimits."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database, self._clock = database, clock

    def budget(self, account: str, limit: RequestLimit, alone: RequestBudget) -> StoredBudget:
        return StoredBudget(self._database, account, limit, alone, self._clock)

    def shortages(self, account: str, alone: Shortages) -> StoredShortages:
        return StoredShortages(self._database, account, alone, self._clock)
