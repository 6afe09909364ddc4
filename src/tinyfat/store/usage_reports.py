"""What the ledger of calls tells people: sums of its rows, never sums kept elsewhere."""

from __future__ import annotations

from datetime import date

from tinyfat.ports.usage import AgentMonth, UsageBy, UsageLine
from tinyfat.store.database import Database

_KEYS = {UsageBy.DAY: "day::text", UsageBy.MODEL: "vendor || '/' || model", UsageBy.TURN: "turn"}
_MONTH_KEYS = {UsageBy.DAY: "to_char(month, 'YYYY-MM')", UsageBy.MODEL: "vendor || '/' || model", UsageBy.TURN: "''"}

_PAID = (
    "coalesce(sum(cost) filter (where byok_vendor = ''), 0)::bigint, "
    "coalesce(sum(cost) filter (where byok_vendor <> ''), 0)::bigint"
)


_BILLED = "case when vendor = %(free)s and byok_vendor = '' then 0 else cost end"
FREE_VENDOR = "stand-in"  # our own stand-in for a vendor: its calls are counted and held, and nobody is billed


class UsageReportStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_agent(self, agent_id: str, by: UsageBy, since: date, limit: int) -> list[UsageLine]:
        """Of months whose calls have become sums there is one line by day, named by the month, and one by turn: ""."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                f"select of, sum(calls)::bigint, sum(input)::bigint, sum(cached)::bigint, sum(output)::bigint, "  # noqa: S608
                f"{_PAID}, sum(estimated)::bigint, max(at) from ("
                f"select {_KEYS[by]} as of, 1 as calls, input, cached, output, cost, byok_vendor, "
                "estimated::int as estimated, at from calls where agent_id = %(agent)s and day >= %(since)s "
                f"union all select {_MONTH_KEYS[by]}, calls, input, cached, output, cost, byok_vendor, estimated, "
                "last_at from call_months where agent_id = %(agent)s "
                "and month >= date_trunc('month', %(since)s::date)::date"
                ") lines group by of order by max(at) desc, of limit %(limit)s",
                {"agent": agent_id, "since": since, "limit": limit},
            )
            return [UsageLine(*row) for row in await cursor.fetchall()]

    async def month(self, first: date) -> list[AgentMonth]:
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                f"select a.id::text, a.name, coalesce(sum(calls), 0)::bigint, {_PAID} "  # noqa: S608
                f"from agents a left join (select agent_id, 1 as calls, {_BILLED} as cost, byok_vendor from calls "
                "where day >= %(first)s and day < (%(first)s::date + interval '1 month')::date union all "
                f"select agent_id, calls, {_BILLED}, byok_vendor from call_months where month = %(first)s"
                ") c on c.agent_id = a.id "
                "group by a.id, a.name, a.state, a.state_since having coalesce(sum(calls), 0) > 0 "
                "or a.state <> 'destroyed' or a.state_since >= %(first)s::timestamp at time zone 'UTC' "
                "order by 4 desc, 5 desc, a.name",
                {"first": first, "free": FREE_VENDOR},
            )
            return [AgentMonth(*row) for row in await cursor.fetchall()]
