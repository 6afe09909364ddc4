from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, LiteralString, cast

import pytest
from psycopg.rows import TupleRow

from tinyfat.domain.agents import RuntimeKind
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.store import by_name
from tinyfat.store.agents import AgentStore
from tinyfat.store.by_name import ByName
from tinyfat.store.database import Database, OneConnection


class Statements:
    """A connection whose statements end when the test lets them."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.rows: dict[str, int] = {}
        self.error: Exception | None = None
        self.go = asyncio.Event()
        self.begun = asyncio.Event()

    async def fetch(self, statement: LiteralString, values: Sequence[Any]) -> list[TupleRow]:
        self.asked.append(list(values[0]))
        rows = dict(self.rows)
        self.begun.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return [(name, rows[name]) for name in set(values[0]) if name in rows]


def of(statements: Statements) -> ByName[int]:
    return ByName(cast(OneConnection, statements), "", lambda row: int(row[1]))


async def test_what_is_asked_in_one_moment_is_one_statement() -> None:
    statements = Statements()
    statements.rows = {"ada": 1, "eve": 2}
    statements.go.set()
    names = of(statements)
    assert await asyncio.gather(*(names.get(name) for name in ("ada", "eve", "ada", "nobody"))) == [1, 2, 1, None]
    assert statements.asked == [["ada", "eve", "ada", "nobody"]]


async def test_who_asks_while_a_statement_runs_hears_what_is_so_after_that() -> None:
    statements = Statements()
    names = of(statements)
    first = asyncio.create_task(names.get("ada"))
    await statements.begun.wait()
    statements.rows["ada"] = 1
    second = asyncio.create_task(names.get("ada"))
    statements.go.set()
    assert await asyncio.gather(first, second) == [None, 1]
    assert len(statements.asked) == 2


async def test_an_outage_is_told_to_all_who_asked_and_to_nobody_after_it() -> None:
    statements = Statements()
    statements.go.set()
    statements.error = StoreUnavailable("away")
    names = of(statements)
    told = await asyncio.gather(names.get("ada"), names.get("eve"), return_exceptions=True)
    assert [type(one) for one in told] == [StoreUnavailable] * 2
    statements.error = None
    assert await names.get("ada") is None


async def test_who_gives_up_takes_no_other_with_it() -> None:
    statements = Statements()
    statements.rows = {"ada": 1}
    names = of(statements)
    gone, stays = asyncio.create_task(names.get("ada")), asyncio.create_task(names.get("ada"))
    await statements.begun.wait()
    gone.cancel()
    statements.go.set()
    assert await stays == 1


async def test_more_than_the_bound_in_all_is_refused_and_more_than_a_statement_takes_goes_in_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(by_name, "WAITING_MAX", 5)
    monkeypatch.setattr(by_name, "ASKED_MAX", 2)
    statements = Statements()
    names = of(statements)
    waiting = [asyncio.create_task(names.get(str(number))) for number in range(5)]
    await asyncio.sleep(0)  # each has asked, and no statement has begun
    with pytest.raises(StoreUnavailable, match="too many"):
        await names.get("one more")
    statements.go.set()
    assert await asyncio.gather(*waiting) == [None] * 5
    assert all(len(asked) <= 2 for asked in statements.asked)


async def test_an_addressee_is_as_the_ledger_has_it_now(database: Database) -> None:
    agents = AgentStore(database)
    agent = await agents.create("ada", "ada@example.org", RuntimeKind.ECHO, "memory")
    assert (await agents.addressee("ada"))[1] == ["ada@example.org"]
    await agents.allow(agent.id, "@example.net")
    assert (await agents.addressee("ada"))[1] == ["ada@example.org", "@example.net"]
