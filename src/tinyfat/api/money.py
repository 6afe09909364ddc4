"""The operator's API on money: keys of the relay, usage, caps, owners' own keys, models and their prices, margins."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, SecretStr

from tinyfat.api.keys import require_operator
from tinyfat.api.operator import Here
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.byok import KnownVendorKey, vendor_key
from tinyfat.domain.money import AgentFacts, AgentMoney, agent_money, cost_within, in_all, month_of, worst_first
from tinyfat.domain.relay_keys import RANDOM_BYTES, RelayKey, key_from
from tinyfat.domain.usage import MANAGED_CAPS, Caps, nanodollars
from tinyfat.ports.ledger import NotFound
from tinyfat.ports.usage import AgentMonth, UsageBy
from tinyfat.relay_wiring import Relay
from tinyfat.wiring import World

LINES_MAX = 1000
NO_CAP_WORD = "none"
INCLUDED_WORD = "included"
TURN_CALLS_MAX = 1_000_000

router = APIRouter(prefix="/api", dependencies=[Depends(require_operator)])


class NewKey(BaseModel):
    label: str = Field(default="", max_length=200)


class NewCaps(BaseModel):
    """Dollars as text, so that no float comes in between; "none": no cap; left out: as it was. The month's also
    "included": a new agent's, which bounds what the operator pays alone."""

    month: str | None = None
    day: str | None = None
    turn: str | None = None
    turn_calls: str | None = None


class Switch(BaseModel):
    killed: bool


class OwnerKey(BaseModel):
    vendor: str
    key: SecretStr


def _relay(request: Request) -> Relay:
    relay: Relay = request.app.state.relay
    return relay


TheRelay = Annotated[Relay, Depends(_relay)]


@router.post("/agents/{name}/keys", status_code=201)
async def key_add(name: str, new: NewKey, world: Here) -> dict[str, Any]:
    """The one time that the key itself is told."""
    agent = await world.agents.find(name.lower())
    key = key_from(os.urandom(RANDOM_BYTES))
    return {"key": key, **_key(await world.relay_keys.add(agent.id, key, new.label))}


@router.get("/agents/{name}/keys")
async def key_list(name: str, world: Here) -> list[dict[str, Any]]:
    agent = await world.agents.find(name.lower())
    return [_key(key) for key in await world.relay_keys.list(agent.id)]


@router.delete("/agents/{name}/keys/{key}")
async def key_revoke(name: str, key: str, world: Here) -> dict[str, Any]:
    """A machine's own is replaced at once: its box gets another, and its runtime does not notice."""
    agent = await world.agents.find(name.lower())
    revoked = await world.relay_keys.revoke(agent.id, key)
    if revoked.machine_id is not None:
        await world.tell_box(agent.id)
    return _key(revoked)


@router.get("/agents/{name}/usage")
async def usage(
    name: str, world: Here, by: UsageBy = UsageBy.DAY, limit: Annotated[int, Query(ge=1, le=LINES_MAX)] = 31
) -> dict[str, Any]:
    """This month (UTC)."""
    agent = await world.agents.find(name.lower())
    spend = await world.usage.spend(agent.id)
    month = month_of(datetime.now(UTC))
    lines = await world.usage_reports.of_agent(agent.id, by, month.first, limit)
    return {
        "name": agent.name,
        "month": f"{month.first:%Y-%m}",
        "spent_nanodollars": spend.spent,
        "reserved_nanodollars": spend.reserved,
        "calls": spend.calls,
        "caps": _caps(spend.caps),
        "by": by,
        "lines": [{**asdict(line), "last_at": line.last_at.isoformat()} for line in lines],
    }


@router.get("/agents/{name}/caps")
async def caps(name: str, world: Here) -> dict[str, Any]:
    agent = await world.agents.find(name.lower())
    return {"name": agent.name, **_caps(await world.budgets.caps(agent.id))}


@router.post("/agents/{name}/caps")
async def caps_set(name: str, new: NewCaps, world: Here) -> dict[str, Any]:
    agent = await world.agents.find(name.lower())
    given = new.model_dump(exclude_none=True)
    included = given.get("month", "").strip().lower() == INCLUDED_WORD
    if included:
        del given["month"]
    changes = {kind: _cap(kind, text) for kind, text in given.items()}
    await world.budgets.change(agent.id, changes)
    if included and MANAGED_CAPS.month is not None:
        await world.budgets.include(agent.id, MANAGED_CAPS.month)
    return {"name": agent.name, **_caps(await world.budgets.caps(agent.id))}


@router.post("/agents/{name}/killed")
async def kill(name: str, switch: Switch, world: Here) -> dict[str, Any]:
    agent = await world.agents.find(name.lower())
    await world.budgets.kill(agent.id, switch.killed)
    return {"name": agent.name, **_caps(await world.budgets.caps(agent.id))}


@router.get("/agents/{name}/byok")
async def byok_list(name: str, world: Here) -> list[dict[str, Any]]:
    agent = await world.agents.find(name.lower())
    return [_owner_key(kept) for kept in await world.byok.list(agent.id)]


@router.post("/agents/{name}/byok")
async def byok_set(name: str, new: OwnerKey, world: Here, relay: TheRelay) -> dict[str, Any]:
    """Kept only once the vendor has answered a call with it."""
    agent = await world.agents.find(name.lower())
    vendor = new.vendor.strip().lower()
    key = vendor_key(vendor, new.key.get_secret_value())
    if complaint := await relay.try_owner_key(vendor, key):
        raise ValueError(f"The key was not kept. {complaint}")
    kept = await world.byok.put(agent.id, vendor, key)
    await world.tell_box(agent.id)
    return {"name": agent.name, **_owner_key(kept), **_caps(await world.budgets.caps(agent.id))}


@router.delete("/agents/{name}/byok/{vendor}")
async def byok_clear(name: str, vendor: str, world: Here) -> dict[str, Any]:
    agent = await world.agents.find(name.lower())
    if not await world.byok.clear(agent.id, vendor.lower()):
        raise NotFound(f"{agent.name} has no key of {vendor}; `tinyfat byok list {agent.name}` shows those it has.")
    await world.tell_box(agent.id)
    return {"name": agent.name, "vendor": vendor.lower(), **_caps(await world.budgets.caps(agent.id))}


@router.get("/models")
async def models(relay: TheRelay) -> list[dict[str, Any]]:
    """In the order they are tried. Prices in nano-dollars a token, which is dollars a billion."""
    return [
        {
            "alias": route.alias,
            "vendor": route.vendor,
            "model": route.model,
            "api": route.api,
            "key_variable": route.key_variable,
            "key_set": not route.key_variable or route.key_variable in relay.variables_set,
            "price": asdict(route.prices.base),
            "cliffs": [asdict(cliff) for cliff in route.prices.cliffs],
        }
        for route in relay.routes
    ]


@router.get("/money")
async def money(world: Here) -> dict[str, Any]:
    now = datetime.now(UTC)
    month = month_of(now)
    gone: Counter[str] = Counter()
    for machine in await world.fleet.servers.gone(month.first):
        gone[machine.agent_id] += cost_within(machine.monthly_nanodollars, machine.since, machine.ended_at, month)
    agents = [
        await _money(world, line, now, gone[line.agent_id]) for line in await world.usage_reports.month(month.first)
    ]
    agents += await _pool(world, now, gone[""])
    agents += await _images(world, now)
    ordered = worst_first(agents)
    total = asdict(in_all(agents))
    for name in ("name", "plan"):
        del total[name]
    return {
        "month": f"{month.first:%Y-%m}",
        "month_ends": (month.end - timedelta(microseconds=1)).isoformat(),
        "agents": [asdict(agent) for agent in ordered],
        "in_all": total,
    }


async def _money(world: World, line: AgentMonth, now: datetime, machines_gone: int) -> AgentMoney:
    agent = await world.agents.get(line.agent_id)
    managed = not await world.byok.list(agent.id)
    try:
        month_cap = (await world.budgets.caps(agent.id)).month
    except NotFound:
        month_cap = 0
    failed = agent.state is AgentState.FAILED  # nobody pays for what could not be made
    ended = failed or agent.state is AgentState.DESTROYED
    machine_price = 0 if ended else await _machine_price(world, agent)
    settings = world.settings
    return agent_money(
        AgentFacts(
            agent.name,
            "managed" if managed else "byok",
            agent.created_at,
            ended,
            0 if failed else nanodollars(settings.price_managed if managed else settings.price_byok),
            machine_price,
            line.paid_by_us,
            line.paid_by_owner,
            line.calls,
            month_cap,
            agent.state_since if ended else None,
            machines_gone,
        ),
        now,
    )


async def _machine_price(world: World, agent: Agent) -> int:
    if world.kinds.is_server(agent.machine_kind):
        return await world.fleet.servers.price_of(agent.id)  # as the provider's own list says
    has_machine = await world.records.of_agent(agent.id) is not None
    return world.kinds.of(agent.machine_kind).month_price if has_machine else 0


async def _pool(world: World, now: datetime, machines_gone: int) -> list[AgentMoney]:
    """What waits for an agent costs money as well, and brings in none. One line, where there is a pool."""
    waiting = [m for kind in world.kinds.server_kinds for m in await world.fleet.servers.waiting(kind)]
    if not waiting and not machines_gone:
        return []
    costs = [
        agent_money(AgentFacts("", "", m.created_at or now, False, 0, m.monthly_nanodollars, 0, 0, 0, None), now)
        for m in waiting
    ]
    costs.append(agent_money(AgentFacts("", "", now, True, 0, 0, 0, 0, 0, None, machines_gone=machines_gone), now))
    return [replace(in_all(costs), name=f"(warm pool: {len(waiting)})", plan="pool")]


async def _images(world: World, now: datetime) -> list[AgentMoney]:
    """The machines that images are being made of: they cost what they cost until now, and end within the hour."""
    making = await world.fleet.image_machines.all()
    if not making:
        return []
    facts = [AgentFacts("", "", one.since, True, 0, one.monthly_nanodollars, 0, 0, 0, None) for one in making]
    costs = [agent_money(of_one, now) for of_one in facts]
    return [replace(in_all(costs), name=f"(images being made: {len(making)})", plan="image")]


def _cap(kind: str, text: str) -> int | None:
    """Raises ValueError."""
    word = text.strip().lower()
    if word == NO_CAP_WORD:
        return None
    if kind != "turn_calls":
        return nanodollars(word.removeprefix("$"))
    if not (word.isascii() and word.isdigit()) or int(word) > TURN_CALLS_MAX:
        raise ValueError(f"{text!r} is not a number of calls between 0 and {TURN_CALLS_MAX:,}.")
    return int(word)


def _caps(caps: Caps) -> dict[str, Any]:
    """Nano-dollars; null: no cap. `month_included`: the month's bounds what the operator pays alone."""
    return {
        "month_nanodollars": caps.month,
        "day_nanodollars": caps.day,
        "turn_nanodollars": caps.turn,
        "turn_calls": caps.turn_calls,
        "killed": caps.killed,
        "month_included": caps.included,
    }


def _key(key: RelayKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "prefix": key.prefix,
        "label": key.label,
        "machine_id": key.machine_id,
        "created_at": key.created_at.isoformat(),
        "revoked_at": key.revoked_at and key.revoked_at.isoformat(),
    }


def _owner_key(kept: KnownVendorKey) -> dict[str, Any]:
    return {"vendor": kept.vendor, "hint": kept.hint, "created_at": kept.created_at.isoformat()}
