"""The Postgres beside us: started once, taken over, started again after a kill, stopped for good."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.running import until
from tinyfat.store.embedded import EmbeddedPostgres

pytestmark = pytest.mark.slow


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """Not started yet; stopped afterwards, however the test ends."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    postgres = EmbeddedPostgres(home)
    yield postgres
    await postgres.stop()


async def write(postgres: EmbeddedPostgres, text: str) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection:
        await connection.execute("create table if not exists notes (text text)")
        await connection.execute("insert into notes values (%s)", (text,))


async def read(postgres: EmbeddedPostgres) -> list[str]:
    async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
        return [row[0] for row in await (await connection.execute("select text from notes")).fetchall()]


def pid(postgres: EmbeddedPostgres) -> int:
    process = postgres.process()
    assert process is not None
    return process.pid


async def test_its_life(postgres: EmbeddedPostgres) -> None:
    assert postgres.process() is None
    await postgres.start()
    await write(postgres, "one")
    first = pid(postgres)

    await postgres.start()  # it runs: nothing happens
    assert pid(postgres) == first

    heir = EmbeddedPostgres(postgres.data.parent)  # its control plane was killed; another takes it over
    await heir.start()
    assert pid(heir) == first and await read(heir) == ["one"]

    os.kill(first, signal.SIGKILL)

    async def dead() -> bool:
        return postgres.process() is None

    await until(dead, 20.0, "it is dead")
    await postgres.start()
    assert pid(postgres) != first and await read(heir) == ["one"]
    await write(postgres, "two")

    children = psutil.Process(pid(postgres)).children(recursive=True)
    await postgres.stop()
    assert postgres.process() is None and [p for p in children if p.is_running()] == []
    await postgres.stop()  # twice: once
    await postgres.start()
    assert await read(postgres) == ["one", "two"]


async def test_a_commit_is_on_the_disk_when_it_returns(postgres: EmbeddedPostgres) -> None:
    await postgres.start()
    async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            (value,) = await (await connection.execute(f"show {setting}".encode())).fetchone() or ("",)
            assert value == "on", setting


async def test_nobody_reaches_it_by_a_network_and_no_other_user_by_its_socket(postgres: EmbeddedPostgres) -> None:
    await postgres.start()
    process = postgres.process()
    assert process is not None
    assert [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    assert postgres.data.stat().st_mode & 0o077 == 0
    socket = Path(postgres.url.split("host=")[1])
    assert socket.stat().st_mode & 0o077 == 0 and (socket / ".s.PGSQL.5432").exists()


async def test_a_home_with_a_long_path_works(tmp_path: Path) -> None:
    home = tmp_path / ("a-rather-long-name-" * 6)
    home.mkdir(mode=0o700)
    postgres = EmbeddedPostgres(home)
    try:
        await postgres.start()
        await write(postgres, "one")
        folder = Path(postgres.url.split("host=")[1])
        assert folder.parent == Path(tempfile.gettempdir()) and folder.stat().st_mode & 0o077 == 0
    finally:
        await postgres.stop()
        shutil.rmtree(Path(postgres.url.split("host=")[1]), ignore_errors=True)


async def test_a_pid_file_of_somebody_else_is_not_believed(postgres: EmbeddedPostgres) -> None:
    await postgres.start()
    await postgres.stop()
    (postgres.data / "postmaster.pid").write_text(f"{os.getpid()}\n{postgres.data}\n")
    assert postgres.process() is None
    await postgres.stop()  # were it believed, this test would end here
