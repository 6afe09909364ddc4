"""A real Postgres for tests that need no whole TinyFat: one server, a fresh migrated database for each test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from tinyfat.store.database import Database
from tinyfat.store.embedded import EmbeddedPostgres

TEMPLATE = "migrated"
_numbers = itertools.count(1)


class Server:
    """One server; `url(name)` of a database in it."""

    def __init__(self, home: Path) -> None:
        self.postgres = EmbeddedPostgres(home)

    def url(self, name: str = "postgres") -> str:
        return self.postgres.url.replace("/postgres?", f"/{name}?")

    async def make(self, name: str, template: str = "template1") -> str:
        async with await psycopg.AsyncConnection.connect(self.url(), autocommit=True) as connection:
            await connection.execute(f'create database "{name}" template "{template}"'.encode())
        return self.url(name)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """Fresh and migrated; open until the block ends."""
        database = Database(await self.make(f"test{next(_numbers)}", TEMPLATE))
        await database.open()
        try:
            yield database
        finally:
            await database.close()


async def _migrated(server: Server) -> None:
    await server.postgres.start()
    database = Database(await server.make(TEMPLATE))
    await database.open()
    await database.migrate()
    await database.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("postgres"))
    asyncio.run(_migrated(server))
    yield server
    asyncio.run(server.postgres.stop())


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    async with server.database() as database:
        yield database
