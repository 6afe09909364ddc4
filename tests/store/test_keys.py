"""Keys of the relay: one agent's, shown once, known by prefix or id."""

from __future__ import annotations

import uuid

import pytest

from tests.store.ledgers import Ledgers, key_number
from tinyfat.domain.relay_keys import MARK, key_from
from tinyfat.domain.usage import MANAGED_CAPS, Caps
from tinyfat.ports.ledger import Conflict, NotFound
from tinyfat.store.agents import AgentStore


async def test_added_listed_revoked(ledgers: Ledgers) -> None:
    agent_id, _ = await ledgers.agent()
    machine = str(uuid.uuid4())
    key = key_from(bytes(range(32)))
    made = await ledgers.keys.add(agent_id, key, "box\x00", machine)
    assert key.startswith(MARK) and made.prefix == key[:12] and (made.machine_id, made.label) == (machine, "box\ufffd")
    assert await ledgers.keys.add(agent_id, key, "again") == made  # what is derived for a machine is derived again
    assert [k.prefix for k in await ledgers.keys.list(agent_id)][1] == made.prefix
    revoked = await ledgers.keys.revoke(agent_id, made.prefix)
    assert revoked.id == made.id and revoked.revoked_at is not None
    assert (await ledgers.keys.revoke(agent_id, made.id)).revoked_at == revoked.revoked_at
    assert (await ledgers.keys.add(agent_id, key)).revoked_at == revoked.revoked_at  # it does not come back to life
    assert await ledgers.keys.revoke_all(agent_id) == 1


async def test_one_agents_key_is_not_anothers(ledgers: Ledgers) -> None:
    one, _ = await ledgers.agent()
    other, _ = await ledgers.agent()
    key = key_from(b"\x05" * 32)
    made = await ledgers.keys.add(one, key)
    with pytest.raises(Conflict):
        await ledgers.keys.add(other, key)
    for name in (made.id, made.prefix, "nonsense", "\x00"):
        with pytest.raises(NotFound):
            await ledgers.keys.revoke(other, name)
    await ledgers.keys.revoke_all(other)
    assert (await ledgers.keys.list(one))[1].revoked_at is None
    with pytest.raises(NotFound):
        await ledgers.keys.add(str(uuid.uuid4()), key_number(501))


async def test_a_prefix_of_several_names_none_of_them(ledgers: Ledgers) -> None:
    agent_id, _ = await ledgers.agent()
    for last in (1, 2):
        await ledgers.keys.add(agent_id, key_from(b"\xff" * 31 + bytes([last])))
    with pytest.raises(Conflict):
        await ledgers.keys.revoke(agent_id, key_from(b"\xff" * 32)[:12])
    assert [k.revoked_at for k in await ledgers.keys.list(agent_id)] == [None] * 3


async def test_an_agent_is_made_with_the_managed_budget(ledgers: Ledgers) -> None:
    agent = await AgentStore(ledgers.database).create("ada", "owner@example.org", "echo", "process")  # type: ignore[arg-type]
    assert await ledgers.budgets.caps(agent.id) == MANAGED_CAPS
    await ledgers.budgets.open(agent.id, Caps(1, 1, 1, 1))
    assert await ledgers.budgets.caps(agent.id) == MANAGED_CAPS
    await ledgers.budgets.set(agent.id, Caps(5, None, 7, None, killed=True))
    assert await ledgers.budgets.caps(agent.id) == Caps(5, None, 7, None, killed=True)
    for work in (
        ledgers.budgets.caps(str(uuid.uuid4())),
        ledgers.budgets.set(str(uuid.uuid4()), MANAGED_CAPS),
        ledgers.budgets.kill(str(uuid.uuid4()), True),
    ):
        with pytest.raises(NotFound):
            await work
