"""Budgets are changed in part: what is not named stays, the kill switch above all."""

from __future__ import annotations

import pytest

from tests.store.ledgers import Ledgers
from tinyfat.domain.usage import MANAGED_CAPS, Caps
from tinyfat.ports.ledger import NotFound

NOBODY = "00000000-0000-0000-0000-000000000000"


async def test_what_is_not_named_stays(ledgers: Ledgers) -> None:
    agent_id, _ = await ledgers.agent(MANAGED_CAPS)
    await ledgers.budgets.kill(agent_id, True)
    await ledgers.budgets.change(agent_id, {"day": 5, "turn_calls": None})
    assert await ledgers.budgets.caps(agent_id) == Caps(MANAGED_CAPS.month, 5, MANAGED_CAPS.turn, None, True)
    await ledgers.budgets.change(agent_id, {})
    assert (await ledgers.budgets.caps(agent_id)).day == 5
    with pytest.raises(NotFound):
        await ledgers.budgets.change(NOBODY, {"day": 5})


async def test_the_months_cap_is_replaced_only_where_nobody_set_another(ledgers: Ledgers) -> None:
    agent_id, _ = await ledgers.agent(MANAGED_CAPS)
    await ledgers.budgets.replace_month(agent_id, MANAGED_CAPS.month, None)
    assert (await ledgers.budgets.caps(agent_id)).month is None
    await ledgers.budgets.replace_month(agent_id, MANAGED_CAPS.month, 7)
    assert (await ledgers.budgets.caps(agent_id)).month is None
    await ledgers.budgets.replace_month(agent_id, None, 7)
    assert (await ledgers.budgets.caps(agent_id)).month == 7
