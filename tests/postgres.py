"""A real Postgres for tests that need no whole TinyFat: one server, and a database emptied for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from tinyfat.store.database import Database
from tinyfat.store.embedded import EmbeddedPostgres

SHARED = "shared"


class Server:
    """One server; `url(name)` of a database in it."""

    def __init__(self, home: Path) -> None:
        self.postgres = EmbeddedPostgres(home)

    def url(self, name: str = "postgres") -> str:
        return self.postgres.url.replace("/postgres?", f"/{name}?")

    async def make(self, name: str) -> str:
        """A database of its own, with nothing in it."""
        async with await psycopg.AsyncConnection.connect(self.url(), autocommit=True) as connection:
            await connection.execute(f'create database "{name}"'.encode())
        return self.url(name)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """Migrated, its tables empty; open until the block ends. One at a time: it is always the same one."""
        database = Database(self.url(SHARED))
        await database.open()
        try:
            async with database.connection() as connection:
                await connection.execute(
                    "truncate agents, executors, message_bodies, call_months, request_budgets, shortages, "
                    "operator_mails, ended_machines "
                    "restart identity cascade"
                )
            yield database
        finally:
            await database.close()


async def _prepare(server: Server) -> None:
    await server.postgres.start()
    async with await psycopg.AsyncConnection.connect(server.url(), autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes"):  # nothing here outlives the test, and nobody pulls the plug
            await connection.execute(f"alter system set {setting} = off".encode())
        await connection.execute("select pg_reload_conf()")
    database = Database(await server.make(SHARED))
    await database.open()
    await database.migrate()
    await database.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("postgres"))
    asyncio.run(_prepare(server))
    yield server
    asyncio.run(server.postgres.stop())


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    async with server.database() as database:
        yield database
