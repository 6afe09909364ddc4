"""Unit economics: a month's price against its costs, and where that leads."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tinyfat.domain.money import (
    AgentFacts,
    agent_money,
    cost_within,
    in_all,
    month_of,
    price_of_days,
    worst_first,
)

DOLLAR = 10**9
NOW = datetime(2026, 11, 16, tzinfo=UTC)  # half of November is over
ADA = AgentFacts("ada", "managed", datetime(2026, 1, 1, tzinfo=UTC), False, 30 * DOLLAR, 6 * DOLLAR, 2 * DOLLAR, 0, 10,
                 8 * DOLLAR)  # fmt: skip


def test_costs_go_on_as_they_did() -> None:
    ada = agent_money(ADA, NOW)
    assert (ada.machine, ada.inference, ada.margin) == (3 * DOLLAR, 2 * DOLLAR, 25 * DOLLAR)
    assert (ada.forecast_cost, ada.forecast_margin) == (10 * DOLLAR, 20 * DOLLAR)


def test_inference_stops_at_the_cap_and_an_ended_agent_costs_no_more() -> None:
    assert agent_money(replace(ADA, paid_by_us=7 * DOLLAR), NOW).forecast_cost == 14 * DOLLAR
    assert agent_money(replace(ADA, paid_by_us=7 * DOLLAR, month_cap=None), NOW).forecast_cost == 20 * DOLLAR
    assert agent_money(replace(ADA, paid_by_us=9 * DOLLAR), NOW).forecast_cost == 15 * DOLLAR  # the cap was lowered
    ended = agent_money(replace(ADA, ended=True, machine_price=0), NOW)
    assert ended.forecast_cost == 2 * DOLLAR


def test_an_agent_of_an_hours_age_is_no_catastrophe() -> None:
    young = replace(ADA, since=NOW - timedelta(hours=1), paid_by_us=DOLLAR // 10, machine_price=0, month_cap=None)
    assert agent_money(young, NOW).forecast_cost == DOLLAR // 10 + 15 * DOLLAR // 10


def test_whoever_loses_money_comes_first_and_the_sum_adds_up() -> None:
    loser = agent_money(replace(ADA, name="zoe", paid_by_us=40 * DOLLAR, month_cap=None), NOW)
    ada = agent_money(ADA, NOW)
    assert [agent.name for agent in worst_first([ada, loser])] == ["zoe", "ada"]
    total = in_all([ada, loser])
    assert (total.price, total.inference, total.calls) == (60 * DOLLAR, 42 * DOLLAR, 20)
    assert total.forecast_margin == ada.forecast_margin + loser.forecast_margin


def test_a_month_is_the_calendars_in_utc() -> None:
    month = month_of(datetime(2026, 12, 31, 23, 30, tzinfo=UTC))
    assert (month.first.isoformat(), month.end) == ("2026-12-01", datetime(2027, 1, 1, tzinfo=UTC))
    assert month_of(datetime.fromisoformat("2027-01-01T00:30:00+02:00")).first.isoformat() == "2026-12-01"


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)),
    st.integers(0, 10**13),
    st.none() | st.integers(0, 10**13),
    st.booleans(),
)
def test_a_forecast_is_never_below_what_was_spent(
    now: datetime, since: datetime, paid: int, cap: int | None, ended: bool
) -> None:
    money = agent_money(replace(ADA, since=since, paid_by_us=paid, month_cap=cap, ended=ended), now)
    assert money.forecast_cost >= money.machine + money.inference >= paid
    assert money.margin == money.price - money.machine - money.inference
    if cap is not None:
        assert money.forecast_cost <= max(cap, paid) + ADA.machine_price + 1


def test_a_part_of_a_month_is_priced_by_the_day() -> None:
    made = datetime(2026, 11, 16, 23, 59, tzinfo=UTC)
    assert agent_money(replace(ADA, since=made), made).price == 15 * DOLLAR  # the 16th to the 30th
    minutes = replace(ADA, since=made, ended=True, ended_at=made + timedelta(minutes=5), machine_price=0)
    assert agent_money(minutes, NOW + timedelta(days=3)).price == 2 * DOLLAR  # midnight lay in between
    before = replace(ADA, ended=True, ended_at=datetime(2026, 10, 3, tzinfo=UTC))
    assert agent_money(before, NOW).price == 0


def test_a_machine_that_is_gone_stays_in_its_month() -> None:
    month = month_of(NOW)
    begin, end = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 4, tzinfo=UTC)
    assert cost_within(6 * DOLLAR, begin, end, month) == 6 * DOLLAR * 3 // 30
    assert cost_within(6 * DOLLAR, begin, datetime(2026, 10, 9, tzinfo=UTC), month) == 0
    gone = replace(ADA, ended=True, ended_at=end, machine_price=0, machines_gone=6 * DOLLAR // 10)
    assert agent_money(gone, NOW).machine == agent_money(gone, NOW).forecast_cost - 2 * DOLLAR == 6 * DOLLAR // 10


@given(
    st.integers(0, 10**12),
    st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)),
    st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)),
    st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)),
)
def test_days_make_the_price_and_never_more(price: int, now: datetime, since: datetime, later: datetime) -> None:
    month = month_of(now)
    days = month.end.date().toordinal() - month.first.toordinal()
    parts = price_of_days(price, since, later, month)
    assert 0 <= parts <= price
    on = [month.start + timedelta(days=day) for day in range(days)]
    lived = sum(since.date() <= day.date() <= later.date() for day in on)
    assert parts == price * lived // days
    assert price_of_days(price, month.start, None, month) == price
