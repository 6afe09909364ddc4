"""The operator's API on servers: who may log in, who did, and whether the fleet agrees with the providers' lists."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from tinyfat.api.box_link import box_of
from tinyfat.api.keys import require_operator
from tinyfat.api.operator import Here
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.enrolment import OPERATOR_USER, ssh_principal
from tinyfat.domain.machines import Machine
from tinyfat.domain.ssh_keys import LINE_CHARS_MAX, read_public_key
from tinyfat.flows import publish, replace
from tinyfat.flows.orders import machine_id_of
from tinyfat.ports.ledger import Conflict
from tinyfat.ports.server_ledger import ImageMachine, OwnerKey, SshSession
from tinyfat.wiring import World

SSH_PORT = 22
SSH_SECONDS = 300  # within which a session begins; sshd lets it go on afterwards
LIST_MAX = 1000

router = APIRouter(prefix="/api", dependencies=[Depends(require_operator)])


class NewSshKey(BaseModel):
    key: str = Field(max_length=LINE_CHARS_MAX + 1000)
    name: str = Field(default="", max_length=100)


class NewMachine(BaseModel):
    image: str = Field(default="", max_length=200)
    size: str = Field(default="", max_length=100)
    without_state: bool = False  # the old one is dead: the memory starts anew


class NewSession(BaseModel):
    public_key: str = Field(max_length=LINE_CHARS_MAX)
    who: str = Field(min_length=1, max_length=200)
    why: str = Field(default="", max_length=1000)
    command: str = Field(default="", max_length=10_000)


class EndedSession(BaseModel):
    exit_code: int = Field(ge=-255, le=255)


@router.post("/agents/{name}/replace", status_code=202)
async def replace_machine(name: str, new: NewMachine, world: Here) -> dict[str, Any]:
    """Begins; `GET /agents/NAME` tells how far it is."""
    agent = await world.agents.find(name.lower())
    await _server(world, agent)
    generation = agent.replacing + 1
    if not await world.fleet.servers.begin_replacing(agent.id, generation):
        raise Conflict(
            f"{agent.name} is {agent.state}, or its machine is being replaced already; "
            f"`tinyfat agent show {agent.name}` tells how far that is."
        )
    await world.agents.placed(agent.id, new.image, new.size)
    await world.agents.become(agent.id, AgentState.READY, "", AgentState.READY)  # what an earlier attempt left in words
    wanted = replace.Replacement(agent.id, generation, new.without_state)
    await world.engine.start(replace.FLOW, f"{replace.FLOW}:{agent.id}:{generation}", wanted.subject)
    return {
        "id": agent.id,
        "name": agent.name,
        "generation": generation,
        "machine": machine_id_of(agent.id, generation),
    }


@router.post("/agents/{name}/publish", status_code=202)
async def begin_publishing(name: str, world: Here) -> dict[str, Any]:
    """Begins; `GET /agents/NAME` tells how far it is."""
    return await _publish(name, True, world)


@router.post("/agents/{name}/unpublish", status_code=202)
async def end_publishing(name: str, world: Here) -> dict[str, Any]:
    return await _publish(name, False, world)


@router.get("/agents/{name}/ssh-keys")
async def ssh_keys(name: str, world: Here) -> list[dict[str, Any]]:
    agent = await world.agents.find(name.lower())
    return [_key(key) for key in await world.fleet.keys.list(agent.id)]


@router.post("/agents/{name}/ssh-keys", status_code=201)
async def ssh_key_add(name: str, new: NewSshKey, world: Here) -> dict[str, Any]:
    agent = await world.agents.find(name.lower())
    key = read_public_key(new.key)
    added = await world.fleet.keys.add(agent.id, key.fingerprint, key.public_key, new.name or key.name)
    await _tell_machines(world, agent)
    return _key(added)


@router.delete("/agents/{name}/ssh-keys/{key:path}")  # a fingerprint is in base64, which has slashes
async def ssh_key_remove(name: str, key: str, world: Here) -> dict[str, Any]:
    agent = await world.agents.find(name.lower())
    removed = await world.fleet.keys.remove(agent.id, key)
    await _tell_machines(world, agent)
    return _key(removed)


@router.post("/agents/{name}/ssh-sessions", status_code=201)
async def ssh_begin(name: str, new: NewSession, world: Here) -> dict[str, Any]:
    """A certificate for the caller's own key: for this machine alone, for minutes. The session is in the log first."""
    agent = await world.agents.find(name.lower())
    machine = await _server(world, agent)
    key = read_public_key(new.public_key)
    address = machine.ipv4 or machine.ipv6
    session = await world.fleet.ssh_sessions.begin(
        agent.id, machine.id, address, new.who, new.why, new.command, key.fingerprint, SSH_SECONDS
    )
    certificate = world.fleet.ssh.sign_user(
        key.public_key,
        [ssh_principal(machine.id)],
        SSH_SECONDS,
        f"{new.who} (session {session.serial})",
        session.serial,
        datetime.now(UTC),
    )
    return {
        "serial": session.serial,
        "certificate": certificate,
        "user": OPERATOR_USER,
        "address": address,
        "port": SSH_PORT,
        "hostname": machine.hostname,
        "host_key": world.fleet.host_key(agent.id),
    }


@router.post("/ssh-sessions/{serial}/ended")
async def ssh_end(serial: int, ended: EndedSession, world: Here) -> dict[str, Any]:
    await world.fleet.ssh_sessions.end(serial, ended.exit_code)
    return {"serial": serial}


@router.get("/ssh-sessions")
async def ssh_sessions(
    world: Here, name: str = "", limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = 50
) -> list[dict[str, Any]]:
    agent_id = (await world.agents.find(name.lower())).id if name else None
    return [_session(session) for session in await world.fleet.ssh_sessions.list(agent_id, limit)]


@router.get("/fleet")
async def fleet(request: Request, world: Here, look: bool = False) -> dict[str, Any]:
    """`look`: compare with the providers now, instead of telling what the last comparison saw."""
    if look:
        await world.fleet.reconcile.run()
    names = {agent.id: agent.name for agent in await world.agents.all()}
    machines = [machine for kind in world.fleet.kinds.server_kinds for machine in await world.fleet.servers.all(kind)]
    making = await world.fleet.image_machines.all()
    return {
        "machines": [
            _machine(machine, names.get(machine.agent_id, "")) | box_of(request.app.state.links, machine.id)
            for machine in machines
        ],
        "image_machines": [_image_machine(one) for one in making],
        "month_nanodollars": sum(machine.monthly_nanodollars for machine in machines)
        + sum(one.monthly_nanodollars for one in making),
        "alarms": [
            {
                **asdict(alarm),
                "agent": names.get(alarm.agent_id, ""),
                "since": alarm.since and alarm.since.isoformat(),
                "seen_at": alarm.seen_at and alarm.seen_at.isoformat(),
                "ended_at": None,
            }
            for alarm in await world.fleet.alarms.open()
        ],
    }


async def _publish(name: str, published: bool, world: World) -> dict[str, Any]:
    agent = await world.agents.find(name.lower())
    machine = await _server(world, agent)
    if agent.state is not AgentState.READY:
        raise Conflict(f"{agent.name} is {agent.state}; `tinyfat agent show {agent.name}` tells how far that is.")
    await world.agents.steps_again(agent.id, publish.FLOW)  # at once: nobody is to take an earlier run's for its own
    subject = f"{agent.id}:{publish.PUBLISH if published else publish.UNPUBLISH}:{uuid.uuid4()}"
    await world.engine.start(publish.FLOW, f"{publish.FLOW}:{subject}", subject)
    return {"id": agent.id, "name": agent.name, "published": published, "url": f"https://{machine.hostname}/"}


async def _server(world: World, agent: Agent) -> Machine:
    """Raises Conflict."""
    machine = await world.records.of_agent(agent.id)
    if machine is None or not world.fleet.kinds.is_server(machine.kind):
        raise Conflict(
            f"This takes a server of its own, and {agent.name} has none: it runs on the operator's host. "
            "`tinyfat agent create NAME --owner ADDRESS --plan fat` makes an agent with one."
        )
    if not (machine.ipv4 or machine.ipv6) or machine.enrolled_at is None:
        raise Conflict(
            f"The server of {agent.name} is not up yet; `tinyfat agent show {agent.name}` tells how far it is."
        )
    return machine


async def _tell_machines(world: World, agent: Agent) -> None:
    for machine in await world.records.all_of_agent(agent.id):
        if world.fleet.kinds.is_server(machine.kind):
            await world.fleet.servers.identity_changed(machine.id)


def _key(key: OwnerKey) -> dict[str, Any]:
    return {
        "fingerprint": key.fingerprint,
        "name": key.name,
        "public_key": key.public_key,
        "added_at": key.added_at.isoformat(),
    }


def _session(session: SshSession) -> dict[str, Any]:
    seconds = (session.ended_at - session.started_at).total_seconds() if session.ended_at else None
    return {
        **asdict(session),
        "started_at": session.started_at.isoformat(),
        "valid_until": session.valid_until.isoformat(),
        "ended_at": session.ended_at and session.ended_at.isoformat(),
        "seconds": seconds,
    }


def _image_machine(one: ImageMachine) -> dict[str, Any]:
    return {
        "id": one.provider_id,
        "kind": one.kind,
        "name": one.name,
        "image": one.image,
        "since": one.since.isoformat(),
        "month_nanodollars": one.monthly_nanodollars,
    }


def _machine(machine: Machine, agent: str) -> dict[str, Any]:
    return {
        "id": machine.id,
        "kind": machine.kind,
        "agent": agent,
        "pool": machine.pool,
        "current": machine.current,
        "wanted": machine.wanted,
        "state": machine.link_state,
        "location": machine.location,
        "image": machine.image,
        "ipv4": machine.ipv4,
        "ipv6": machine.ipv6,
        "month_nanodollars": machine.monthly_nanodollars,
        "seen_at": machine.seen_at and machine.seen_at.isoformat(),
    }
