"""Budgets are changed in part: what is not named stays, the kill switch above all."""

from __future__ import annotations

import psycopg
import pytest

from tests.store.ledgers import Ledgers
from tinyfat.domain.usage import MANAGED_CAPS, Caps
from tinyfat.ports.ledger import NotFound

NOBODY = "00000000-0000-0000-0000-000000000000"


async def test_what_is_not_named_stays(ledgers: Ledgers) -> None:
    agent_id, _ = await ledgers.agent(MANAGED_CAPS)
    await ledgers.budgets.kill(agent_id, True)
    await ledgers.budgets.change(agent_id, {"day": 5, "turn_calls": None})
    assert await ledgers.budgets.caps(agent_id) == Caps(MANAGED_CAPS.month, 5, MANAGED_CAPS.turn, None, True, True)
    await ledgers.budgets.change(agent_id, {})
    assert (await ledgers.budgets.caps(agent_id)).day == 5
    with pytest.raises(NotFound):
        await ledgers.budgets.change(NOBODY, {"day": 5})


async def test_a_month_that_somebody_sets_is_no_longer_the_included_one(ledgers: Ledgers) -> None:
    """The same amount, too: it is a cap then, and not what we include."""
    agent_id, _ = await ledgers.agent(MANAGED_CAPS)
    await ledgers.budgets.change(agent_id, {"day": 5})
    assert (await ledgers.budgets.caps(agent_id)).included
    await ledgers.budgets.change(agent_id, {"month": MANAGED_CAPS.month})
    caps = await ledgers.budgets.caps(agent_id)
    assert (caps.month, caps.included) == (MANAGED_CAPS.month, False)
    await ledgers.budgets.include(agent_id, 7)
    caps = await ledgers.budgets.caps(agent_id)
    assert (caps.month, caps.included, caps.day) == (7, True, 5)
    with pytest.raises(NotFound):
        await ledgers.budgets.include(NOBODY, 7)


SUMS = ("month_cap", "day_cap", "turn_cap", "turn_calls", "month_spent", "month_ours", "day_spent", "month_calls")


@pytest.mark.parametrize("column", [*SUMS, "reserved"])
async def test_no_cap_and_no_sum_is_ever_negative(ledgers: Ledgers, column: str) -> None:
    agent_id, _ = await ledgers.agent(MANAGED_CAPS)
    with pytest.raises(psycopg.errors.CheckViolation):
        await ledgers.rows(f"update budgets set {column} = -1 where agent_id = %s", agent_id)
