"""A database with agents, their keys and budgets, and a clock that is set by hand."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from tinyfat.domain.relay_keys import key_from, key_hash
from tinyfat.domain.usage import Caps, Price, Usage
from tinyfat.ports.usage import Held, Reservation, Settlement
from tinyfat.store.budgets import BudgetStore
from tinyfat.store.database import Database
from tinyfat.store.keys import KeyStore
from tinyfat.store.usage import UsageStore

PRICE = Price(300, 1200, 30, 300, "test")
NO_CAPS = Caps(None, None, None, None)


def key_number(number: int) -> str:
    return key_from(number.to_bytes(32, "big"))


def ask(key: str, amount: int = 1000, **more: Any) -> Reservation:
    asked: dict[str, Any] = {
        "call_id": str(uuid.uuid4()),
        "key_hash": key_hash(key),
        "amount": amount,
        "surface": "chat",
        "alias": "main",
        "vendor": "fireworks",
        "model": "m2",
        "price": PRICE,
    }
    return Reservation(**(asked | more))


ONE_EACH = Usage(1, 1)


def ended(call_id: str, usage: Usage = ONE_EACH, **more: Any) -> Settlement:
    return Settlement(call_id, usage, more.pop("latency_ms", 5), more.pop("outcome", "ok"), **more)


class Ledgers:
    """`first` and `second` are two relays on one database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.now: datetime | None = datetime(2026, 11, 20, 12, tzinfo=UTC)
        self.database = Database(url, 4)
        self.first = UsageStore(self.database, "relay:1", lambda: self.now or datetime.now(UTC))
        self.second = UsageStore(self.database, "relay:2", lambda: self.now or datetime.now(UTC))
        self.keys = KeyStore(self.database)
        self.budgets = BudgetStore(self.database)
        self._agents = 0

    async def open(self) -> None:
        await self.database.open()
        await self.first.beat()
        await self.second.beat()

    async def close(self) -> None:
        await self.first.close()
        await self.second.close()
        await self.database.close()

    async def agent(self, caps: Caps | None = NO_CAPS) -> tuple[str, str]:
        """(agent's id, key). `caps` None: without a budget."""
        self._agents += 1
        rows = await self.rows(
            "insert into agents (name, owner, runtime, machine_kind, state) "
            "values (%s, 'owner@example.org', 'echo', 'process', 'ready') returning id::text",
            f"agent{self._agents}",
        )
        agent_id: str = rows[0][0]
        if caps is not None:
            await self.budgets.open(agent_id, caps)
        key = key_number(self._agents)
        await self.keys.add(agent_id, key)
        return agent_id, key

    async def rows(self, query: str, *arguments: Any) -> list[Any]:
        async with self.database.transaction() as connection:
            cursor = await connection.execute(query.encode(), arguments)
            return await cursor.fetchall() if cursor.description else []

    async def held(self, key: str, amount: int = 1000, **more: Any) -> str:
        """The call's id; the caps must allow it."""
        [verdict] = await self.first.reserve([ask(key, amount, **more)])
        assert isinstance(verdict, Held), verdict
        return verdict.call_id

    async def must_add_up(self) -> None:
        """Every sum is what its rows say, to the nano-dollar."""
        wrong = await self.rows(
            "select b.agent_id, b.reserved, b.month_spent, b.day_spent, b.month_calls from budgets b where "
            "b.reserved <> (select coalesce(sum(amount), 0) from holds h where h.agent_id = b.agent_id) or "
            "b.day_spent <> (select coalesce(sum(cost), 0) from calls c where c.agent_id = b.agent_id "
            "and c.day = b.day) or "
            "(b.month_spent, b.month_calls) <> (select coalesce(sum(cost), 0), count(*) from calls c "
            "where c.agent_id = b.agent_id and date_trunc('month', c.day) = date_trunc('month', b.day))"
        )
        assert wrong == []
        wrong = await self.rows(
            "select t.* from turn_sums t, "
            "lateral (select coalesce(sum(amount), 0) as sum, count(*) as n from holds h "
            "where (h.agent_id, h.turn) = (t.agent_id, t.turn)) h, "
            "lateral (select coalesce(sum(cost), 0) as sum, count(*) as n from calls c "
            "where (c.agent_id, c.turn) = (t.agent_id, t.turn)) c "
            "where (t.reserved, t.spent, t.calls) <> (h.sum, c.sum, h.n + c.n)"
        )
        assert wrong == []
