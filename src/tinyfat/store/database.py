"""The connection to Postgres: a bounded pool, transactions, and one name for 'the database is not there'."""

from __future__ import annotations

import asyncio
import re
import select
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, LiteralString, TypeAlias

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from tinyfat.ports.ledger import NotStorable, SchemaTooNew, StoreUnavailable
from tinyfat.store import advisory_locks

CONNECTIONS_MAX = 12
CONNECTION_SECONDS_MAX = 5.0  # to wait for a free one
SHRINK_SECONDS = 10.0  # so often a connection that was not needed in that time is closed: each is 3.5 MB in Postgres
STATEMENT_SECONDS_MAX = 30
# A process that stands still in a transaction, or whose host is gone, must not hold its locks against the others.
IDLE_IN_TRANSACTION_SECONDS_MAX = 60

# A database that is cut off says nothing: without these the kernel waits a quarter of an hour, a connection for ever.
LINE: dict[str, Any] = {
    "connect_timeout": round(CONNECTION_SECONDS_MAX),
    "tcp_user_timeout": 1000 * STATEMENT_SECONDS_MAX,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}

_AWAY = (
    PoolTimeout,
    PoolClosed,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
)

# Whoever waits for the disk has its connection alone, and Postgres plans what it asks once, without sequential scans: a
# plan made while the tables are empty would read all of them later. To plan it for each mail takes seven times as long
# as to run it.
PLANNED_ONCE = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off"

Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]


class Database:
    def __init__(self, url: str, connections_max: int = CONNECTIONS_MAX) -> None:
        self.url = url
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=min(2, connections_max),
            max_size=connections_max,
            timeout=CONNECTION_SECONDS_MAX,
            max_idle=SHRINK_SECONDS,
            reconnect_timeout=1.0,
            kwargs={"autocommit": True, "options": _session(), **LINE},
            open=False,
        )
        self._sweeping: asyncio.Task[None] | None = None
        self._alone: list[OneConnection] = []

    def one_connection(self, options: str = "") -> OneConnection:
        """Beside the pool, and closed with it."""
        self._alone.append(OneConnection(self.url, options))
        return self._alone[-1]

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        for one in self._alone:
            await one.close()
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Each statement is a commit of its own. Raises StoreUnavailable (the database is not there), NotStorable."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except _AWAY as error:
            self._sweep_pool()
            raise _unavailable(error) from error
        except psycopg.DataError as error:
            if "NUL" not in str(error):
                raise
            raise NotStorable("A text with a NUL character can be neither kept nor looked for.") from None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Commits at the end, rolls back on an error. Raises StoreUnavailable."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    def _sweep_pool(self) -> None:
        """One connection broke: the others likely did too. Looking at each before every use would cost a round trip."""
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._pool.check(), name="look at the pool")

    async def ping(self) -> None:
        async with self.connection() as connection:
            await connection.execute("select 1")

    async def migrate(self) -> int:
        """Bring the schema up to date; return its version. Raises SchemaTooNew."""
        scripts = migrations()
        newest = max(scripts)
        async with self.transaction() as connection:
            await connection.execute("select pg_advisory_xact_lock(%s)", (advisory_locks.MIGRATION,))
            await connection.execute(
                "create table if not exists schema_versions "
                "(version int primary key, name text not null, applied_at timestamptz not null default now())"
            )
            row = await (await connection.execute("select coalesce(max(version), 0) from schema_versions")).fetchone()
            version: int = row[0] if row else 0
            if version > newest:
                raise SchemaTooNew(
                    f"The database has schema version {version}; this TinyFat knows {newest}. "
                    "Upgrade TinyFat, or restore the backup taken before the upgrade."
                )
            for number in range(version + 1, newest + 1):
                name, script = scripts[number]
                await connection.execute(script.encode())
                await connection.execute("insert into schema_versions values (%s, %s)", (number, name))
        return newest


class OneConnection:
    """For one kind of statement, one after the other: no pool to ask, and always the same backend of Postgres, whose
    caches are warm. It is made with the first statement, and anew after one that failed for want of it."""

    def __init__(self, url: str, options: str = "") -> None:
        """`options`: of its session, as libpq takes them ("-c name=value")."""
        self._url, self._options = url, f"{_session()} {options}"
        self._connection: Connection | None = None
        self.made = 0  # connections until now: where it is another number, the database may have died in between
        # A connection that is closed under a statement takes the process with it: libuv aborts, asyncio waits for ever.
        self._turn = asyncio.Lock()

    async def fetch(self, statement: LiteralString, values: Sequence[Any]) -> list[TupleRow]:
        """A commit of its own. Raises StoreUnavailable where the database is not there."""
        async with self._turn:
            try:
                connection = self._connection
                if connection is not None and not connection.closed and _hung_up(connection):
                    await self._drop()
                    connection = None
                if connection is None or connection.closed:
                    connection = self._connection = await self._connect()
                    self.made += 1
                cursor = await connection.execute(statement, values, prepare=True)
                return await cursor.fetchall()
            except _AWAY as error:
                await self._drop()
                raise _unavailable(error) from error

    async def close(self) -> None:
        """Once the statement that is under way, if any, has ended."""
        async with self._turn:
            await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connect(self) -> Connection:
        return await psycopg.AsyncConnection.connect(self._url, autocommit=True, options=self._options, **LINE)


def migrations() -> dict[int, tuple[str, str]]:
    """The scripts that ship with this version: number -> (name, SQL). Numbers run from 1 without a gap."""
    found: dict[int, tuple[str, str]] = {}
    for file in resources.files("tinyfat.store").joinpath("migrations").iterdir():
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name):
            found[int(match[1])] = (match[2], file.read_text(encoding="utf-8"))
    return found


async def lock_agent(connection: Connection, agent_id: Any) -> None:
    """Until the transaction ends, nobody else adds to this agent's mail: arrival is an order."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended(%s::text, 0))", (str(agent_id),))


def storable(text: str) -> str:
    """Postgres' text holds every character but NUL, and no lone surrogate."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _session() -> str:
    """Of every connection, as libpq takes it."""
    return (
        f"-c statement_timeout={STATEMENT_SECONDS_MAX}s -c lock_timeout=10s "
        f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_SECONDS_MAX}s"
    )


def _hung_up(connection: Connection) -> bool:
    """Between two statements a server says nothing but that it ends: one that was restarted meanwhile is no failure."""
    waiting = select.poll()
    waiting.register(connection.pgconn.socket, select.POLLIN)
    return bool(waiting.poll(0))


def _unavailable(error: BaseException) -> StoreUnavailable:
    """Raises CancelledError where the task was told to end: the pool waits by asyncio.wait_for, which before Python
    3.12 loses a cancellation that comes with the end of what it waits for (python/cpython#86296). Whoever tries again
    for as long as the database is away would never hear of it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error
    return StoreUnavailable(f"The database does not answer: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
