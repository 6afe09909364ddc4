"""One embedded Postgres for the session, a database of its own for each test: a copy of one that was migrated."""

from __future__ import annotations

import asyncio
import gc
import itertools
import warnings
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from tests.postgres import database, server
from tests.store.ledgers import Ledgers
from tinyfat.store.database import Database
from tinyfat.store.embedded import EmbeddedPostgres

__all__ = ["database", "database_url", "ledgers", "postgres", "server"]

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("pg", numbered=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the server outlives the Popen that started it: on purpose
        asyncio.run(_start(server))
        gc.collect()
    yield server
    asyncio.run(server.stop())


async def _start(server: EmbeddedPostgres) -> None:
    await server.start()
    async with await psycopg.AsyncConnection.connect(server.url, autocommit=True) as connection:
        await connection.execute("create database migrated")
    database = Database(_url(server, "migrated"))
    await database.open()
    await database.migrate()
    await database.close()


def _url(server: EmbeddedPostgres, name: str) -> str:
    return server.url.replace("/postgres?", f"/{name}?")


@pytest.fixture
def database_url(postgres: EmbeddedPostgres) -> str:
    name = f"t{next(_NUMBERS)}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"create database {name} template migrated".encode())
    return _url(postgres, name)


@pytest.fixture
async def ledgers(database_url: str) -> AsyncIterator[Ledgers]:
    made = Ledgers(database_url)
    await made.open()
    yield made
    await made.close()
