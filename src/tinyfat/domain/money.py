"""What an agent brings in and what it costs: integer nano-dollars, one calendar month (UTC). Pure."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

FORECAST_SECONDS_MIN = 86400.0  # an agent of an hour's age is judged as if it had spent in a day what it spent


@dataclass(frozen=True, slots=True)
class AgentMoney:
    """This month. `price` is for each day of it on which the agent lives, in advance; the costs are those so far."""

    name: str
    plan: str  # "managed", "byok"
    price: int
    machine: int
    inference: int  # paid by us
    paid_by_owner: int  # inference on the owner's own key: no cost of ours
    calls: int
    margin: int
    forecast_cost: int  # of machine and inference at the month's end
    forecast_margin: int


@dataclass(frozen=True, slots=True)
class Month:
    start: datetime
    end: datetime

    @property
    def first(self) -> date:
        return self.start.date()


@dataclass(frozen=True, slots=True)
class AgentFacts:
    name: str
    plan: str
    since: datetime  # when it was made
    ended: bool  # destroyed, or it could not be made: it costs nothing any more
    price: int  # a month
    machine_price: int  # a month
    paid_by_us: int  # so far
    paid_by_owner: int
    calls: int
    month_cap: int | None  # of inference
    ended_at: datetime | None = None  # where it has ended
    machines_gone: int = 0  # what its machines that are gone cost this month


def month_of(now: datetime) -> Month:
    """The calendar month, UTC."""
    start = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Month(start, start + timedelta(days=calendar.monthrange(start.year, start.month)[1]))


def agent_money(facts: AgentFacts, now: datetime) -> AgentMoney:
    """Costs go on as they did since the month (or the agent) began; inference we pay stops at the agent's cap."""
    month = month_of(now)
    began = max(month.start, min(facts.since, now))
    lived, left = (now - began).total_seconds(), (month.end - now).total_seconds()
    whole = (month.end - month.start).total_seconds()
    machine = round(facts.machine_price * lived / whole) + facts.machines_gone
    price = price_of_days(facts.price, facts.since, facts.ended_at, month)
    inference, machine_left = facts.paid_by_us, round(facts.machine_price * left / whole)
    if facts.ended:
        inference_left = machine_left = 0
    else:
        inference_left = round(inference * left / max(lived, FORECAST_SECONDS_MIN))
        if facts.month_cap is not None:
            inference_left = min(inference_left, max(facts.month_cap - inference, 0))
    forecast = machine + machine_left + inference + inference_left
    return AgentMoney(
        facts.name,
        facts.plan,
        price,
        machine,
        inference,
        facts.paid_by_owner,
        facts.calls,
        price - machine - inference,
        forecast,
        price - forecast,
    )


def price_of_days(price: int, since: datetime, ended_at: datetime | None, month: Month) -> int:
    """Of a month's price the part for the days (UTC) of it on which an agent lived or will live, its first and its last
    one among them."""
    last_of_month = month.end.date() - timedelta(days=1)
    first = max(month.first, since.astimezone(UTC).date())
    last = min(last_of_month, ended_at.astimezone(UTC).date()) if ended_at else last_of_month
    return price * max((last - first).days + 1, 0) // last_of_month.day


def cost_within(monthly: int, since: datetime, ended_at: datetime, month: Month) -> int:
    """What a machine that is gone cost in this month."""
    seconds = (min(ended_at, month.end) - max(since, month.start)).total_seconds()
    return round(monthly * max(seconds, 0.0) / (month.end - month.start).total_seconds())


def worst_first(agents: Sequence[AgentMoney]) -> list[AgentMoney]:
    """Those that lose money come first."""
    return sorted(agents, key=lambda agent: (agent.forecast_margin, agent.name))


def in_all(agents: Sequence[AgentMoney]) -> AgentMoney:
    def total(name: str) -> int:
        return sum(getattr(agent, name) for agent in agents)

    names = ("price", "machine", "inference", "paid_by_owner", "calls", "margin", "forecast_cost", "forecast_margin")
    price, machine, inference, owners, calls, margin, cost, forecast = (total(name) for name in names)
    return AgentMoney("", "", price, machine, inference, owners, calls, margin, cost, forecast)
