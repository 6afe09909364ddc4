"""What an agent may spend. An agent without a row here may spend nothing."""

from __future__ import annotations

from collections.abc import Mapping

from tinyfat.domain.usage import Caps
from tinyfat.ports.ledger import NotFound
from tinyfat.store.database import Connection, Database

_COLUMNS = {"month": "month_cap", "day": "day_cap", "turn": "turn_cap", "turn_calls": "turn_calls"}
NO_CAP = 2**63 - 1  # the column holds no null: a null is neither over nor under anything


async def open_budget(connection: Connection, agent_id: str, caps: Caps) -> None:
    """In the transaction that makes the agent. Nothing happens where it has one."""
    await connection.execute(
        "insert into budgets (agent_id, month_cap, day_cap, turn_cap, turn_calls, killed, month_included) "
        "values (%s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
        (agent_id, *_columns(caps), caps.killed, caps.included),
    )


class BudgetStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, agent_id: str, caps: Caps) -> None:
        async with self._database.transaction() as connection:
            await open_budget(connection, agent_id, caps)

    async def caps(self, agent_id: str) -> Caps:
        """Raises NotFound."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "select month_cap, day_cap, turn_cap, turn_calls, killed, month_included from budgets "
                "where agent_id = %s",
                (agent_id,),
            )
            row = await cursor.fetchone()
        if row is None:
            raise _no_budget(agent_id)
        return caps_of(*row)

    async def set(self, agent_id: str, caps: Caps) -> None:
        """All of them, the kill switch included; judged by from the next call on. Raises NotFound."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "update budgets set month_cap = %s, day_cap = %s, turn_cap = %s, turn_calls = %s, killed = %s, "
                "month_included = %s, warned = 0 where agent_id = %s",
                (*_columns(caps), caps.killed, caps.included, agent_id),
            )
        if cursor.rowcount == 0:
            raise _no_budget(agent_id)

    async def change(self, agent_id: str, changes: Mapping[str, int | None]) -> None:
        """Of "month", "day", "turn", "turn_calls" those that are named, in one statement: the others and the switch
        stay. A month that is named bounds every call, on the owner's key too, and its owner is told of its levels,
        whatever they were told of another. Raises NotFound."""
        columns = [name for name in _COLUMNS if name in changes]
        if not columns:
            return
        values = [NO_CAP if changes[name] is None else changes[name] for name in columns]
        settings = ", ".join(f"{_COLUMNS[name]} = %s" for name in columns)
        if "month" in changes:
            settings += ", month_included = false, warned = 0"
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                f"update budgets set {settings} where agent_id = %s".encode(),  # noqa: S608
                (*values, agent_id),
            )
        if cursor.rowcount == 0:
            raise _no_budget(agent_id)

    async def include(self, agent_id: str, month: int) -> None:
        """The month's cap is the included inference again: it bounds what we pay. Raises NotFound."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "update budgets set month_cap = %s, month_included = true, warned = 0 where agent_id = %s",
                (month, agent_id),
            )
        if cursor.rowcount == 0:
            raise _no_budget(agent_id)

    async def kill(self, agent_id: str, killed: bool) -> None:
        """The switch alone. Calls under way go on to their end; no other begins. Raises NotFound."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute("update budgets set killed = %s where agent_id = %s", (killed, agent_id))
        if cursor.rowcount == 0:
            raise _no_budget(agent_id)


def caps_of(month: int, day: int, turn: int, turn_calls: int, killed: bool, included: bool) -> Caps:
    """Of a row's columns."""

    def known(cap: int) -> int | None:
        return None if cap == NO_CAP else cap

    return Caps(known(month), known(day), known(turn), known(turn_calls), killed, included)


def _columns(caps: Caps) -> tuple[int, int, int, int]:
    def column(cap: int | None) -> int:
        return NO_CAP if cap is None else cap

    return column(caps.month), column(caps.day), column(caps.turn), column(caps.turn_calls)


def _no_budget(agent_id: str) -> NotFound:
    return NotFound(f"The agent {agent_id} has no budget; `tinyfat agent list` shows the agents there are.")
