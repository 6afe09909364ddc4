"""What the ledger of calls tells people: sums of its rows, never sums kept elsewhere."""

from __future__ import annotations

from datetime import date

from tinyfat.ports.usage import AgentMonth, UsageBy, UsageLine
from tinyfat.store.database import Database

_KEYS = {UsageBy.DAY: "day::text", UsageBy.MODEL: "vendor || '/' || model", UsageBy.TURN: "turn"}

_PAID = (
    "coalesce(sum(cost) filter (where byok_vendor = ''), 0)::bigint, "
    "coalesce(sum(cost) filter (where byok_vendor <> ''), 0)::bigint"
)


class UsageReportStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_agent(self, agent_id: str, by: UsageBy, since: date, limit: int) -> list[UsageLine]:
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                f"select {_KEYS[by]}, count(*), sum(input)::bigint, sum(cached)::bigint, "  # noqa: S608
                f"sum(output)::bigint, {_PAID}, count(*) filter (where estimated), max(at) "
                "from calls where agent_id = %s and day >= %s group by 1 order by max(at) desc, 1 limit %s",
                (agent_id, since, limit),
            )
            return [UsageLine(*row) for row in await cursor.fetchall()]

    async def month(self, first: date) -> list[AgentMonth]:
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                f"select a.id::text, a.name, count(call_id), {_PAID} "  # noqa: S608
                "from agents a left join calls c on c.agent_id = a.id and c.day >= %(first)s "
                "and c.day < (%(first)s::date + interval '1 month')::date "
                "group by a.id, a.name, a.state having count(call_id) > 0 or a.state <> 'destroyed' "
                "order by 4 desc, 5 desc, a.name",
                {"first": first},
            )
            return [AgentMonth(*row) for row in await cursor.fetchall()]
