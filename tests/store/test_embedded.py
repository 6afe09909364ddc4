"""The embedded Postgres comes up again whatever it was killed in."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.running import TinyFat, until
from tinyfat.store.embedded import EmbeddedPostgres

# The server outlives whoever started it, on purpose: nobody waits for it as for a child.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


async def test_a_home_whose_first_start_died_half_way_is_usable(tmp_path: Path) -> None:
    """As after a power cut: everything gone at once, the database's files half made."""
    tinyfat = TinyFat(tmp_path / "home")
    await tinyfat.start(wait=False)

    async def half_made() -> bool:
        return bool(list(tinyfat.home.glob("postgres*/PG_VERSION")))

    await until(half_made, 30, "initdb is at work")
    assert tinyfat.process is not None
    processes = psutil.Process(tinyfat.process.pid).children(recursive=True)
    await tinyfat.kill()
    for process in processes:
        process.kill()
    async with tinyfat:
        assert await tinyfat.json("agent", "list") == []
    assert [folder.name for folder in tinyfat.home.glob("postgres*") if folder.is_dir()] == ["postgres"]


async def test_a_stuck_process_of_a_killed_server_delays_the_next_one_only_while_it_lives(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path)
    await postgres.start()
    try:
        async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
            stuck = psutil.Process(connection.info.backend_pid)
            stuck.send_signal(signal.SIGSTOP)
            try:
                await _killed(postgres)
                starting = asyncio.create_task(postgres.start())

                async def refused() -> bool:
                    return "still in use" in postgres.log.read_text()

                await until(refused, 30, "the next server sees that the memory is in use")
                assert not starting.done()
            finally:
                stuck.send_signal(signal.SIGCONT)
            await asyncio.wait_for(starting, 30)
    finally:
        await postgres.stop()


async def _killed(postgres: EmbeddedPostgres) -> None:
    server = postgres.process()
    assert server is not None
    server.kill()
    await asyncio.to_thread(server.wait, 10)
