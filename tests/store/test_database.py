"""The connection to Postgres, where other processes on the same database misbehave."""

from __future__ import annotations

import asyncio

import pytest

from tests.postgres import Server
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.store import database as module
from tinyfat.store.database import Database

A_LOCK = 4711


async def test_a_process_that_stands_still_loses_its_locks(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_IN_TRANSACTION_SECONDS_MAX", 1)
    still, living = Database(server.url()), Database(server.url())
    await still.open()
    await living.open()
    try:
        with pytest.raises(StoreUnavailable):  # it goes on, and must look again at what it was about to do
            async with still.transaction() as held:
                await held.execute("select pg_advisory_xact_lock(%s)", (A_LOCK,))
                async with asyncio.timeout(8), living.transaction() as other:
                    await other.execute("select pg_advisory_xact_lock(%s)", (A_LOCK,))
                await held.execute("select 1")
    finally:
        await still.close()
        await living.close()
