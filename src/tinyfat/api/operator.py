"""The operator's API: what the command line asks. JSON in and out, a bearer token from TINYFAT_HOME."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from tinyfat.api.box_link import BoxLinks, box_of
from tinyfat.api.keys import require_operator
from tinyfat.domain.agents import Agent, AgentState, Place, Plan, RuntimeKind, agent_name
from tinyfat.domain.machines import PROCESS
from tinyfat.domain.mail.addresses import owner_address, sender_allowed, sender_pattern
from tinyfat.domain.mail.judgement import NOT_ALLOWED
from tinyfat.domain.mail.states import MessageState
from tinyfat.flows import provision, retire
from tinyfat.ports.ledger import Conflict, Message, NotFound, OthersThere
from tinyfat.sandbox.means import NONE, Means
from tinyfat.wiring import World

LOG_LINES_MAX = 1000
MAIL_LISTED = 1000
MAIL_LISTED_MAX = 10_000
DAY_SECONDS = 86_400.0
ZONE_SECONDS_MAX = 5.0  # for a look at the zone before an agent is made

router = APIRouter(prefix="/api", dependencies=[Depends(require_operator)])


class NewAgent(BaseModel):
    name: str
    owner: str
    runtime: RuntimeKind = RuntimeKind.OPENCLAW
    machine: str = ""  # "": as the operator's settings say, or as the plan needs
    plan: Plan | None = None
    location: str = Field(default="", max_length=100)
    image: str = Field(default="", max_length=200)
    size: str = Field(default="", max_length=100)
    take_name: bool = False  # though it is kept for the owner of an agent that is gone


class Sender(BaseModel):
    pattern: str = Field(max_length=320)


def _world(request: Request) -> World:
    world: World = request.app.state.world
    return world


Here = Annotated[World, Depends(_world)]


@router.post("/agents", status_code=201)
async def create(new: NewAgent, world: Here) -> dict[str, Any]:
    name = agent_name(new.name)
    owner = owner_address(new.owner, world.settings.domain)
    kind = new.machine or world.settings.machine
    world.check_machine_kind(kind)  # a kind we do not have is refused before anything is written
    if new.plan is Plan.FAT and not world.kinds.is_server(kind):
        raise ValueError(
            f"A fat agent has a server of its own, and a machine of the kind {kind!r} is none; say --machine KIND, or "
            f"set TINYFAT_MACHINE. There are: {', '.join(world.kinds.server_kinds) or 'none here'}."
        )
    if world.kinds.is_server(kind) and (complaint := await _foreign_name(world, name)):
        raise ValueError(complaint)
    place = Place(new.plan or "", new.location, new.image, new.size)
    kept_seconds = 0.0 if new.take_name else world.settings.name_kept_days * DAY_SECONDS
    sandbox = await world.machines.sandbox() if kind == PROCESS else NONE
    one_owner = kind == PROCESS and not (sandbox.all or world.settings.process_shared)
    try:
        agent = await world.agents.create(name, owner, new.runtime, kind, place, kept_seconds, one_owner)
    except OthersThere as error:
        raise ValueError(_one_owner_alone(error.owners, sandbox)) from None
    except Conflict as taken:
        agent = await _asked_before(world, name, taken, (owner, new.runtime, kind, place))
    return await _making(world, agent)


@router.post("/agents/{name}/retry", status_code=202)
async def retry(name: str, world: Here) -> dict[str, Any]:
    """A making that failed begins anew; one that is under way goes on."""
    agent = await world.agents.find(name.lower())
    if not _is_unmade(agent):
        raise Conflict(f"{agent.name} is {agent.state}: there is nothing to make anew.")
    return await _making(world, agent)


async def _asked_before(world: World, name: str, taken: Conflict, asked: tuple[Any, ...]) -> Agent:
    """The agent that is not made yet, and was asked for in the same words. Raises `taken` where there is none."""
    try:
        agent = await world.agents.find(name)
    except NotFound:  # the name is kept for the owner of an agent that is gone
        raise taken from None
    if not _is_unmade(agent) or asked != (agent.owner, agent.runtime, agent.machine_kind, _place(agent)):
        raise taken
    return agent


def _is_unmade(agent: Agent) -> bool:
    return agent.state in (AgentState.CREATING, AgentState.FAILED)


def _place(agent: Agent) -> Place:
    return Place(agent.plan, agent.location, agent.image, agent.size)


async def _making(world: World, agent: Agent) -> dict[str, Any]:
    """It is being made, whatever was before. What a crash leaves unbegun here is begun by flows/begun."""
    if agent.state is AgentState.FAILED:
        await world.agents.steps_again(agent.id, provision.FLOW)
        await world.agents.become(agent.id, AgentState.CREATING, "", AgentState.FAILED)
        agent = await world.agents.get(agent.id)
    await world.engine.start(provision.FLOW, provision.flow_id(agent), agent.id)
    return await _shown(world, agent)


@router.get("/agents")
async def agents(world: Here) -> list[dict[str, Any]]:
    return [await _shown(world, agent) for agent in await world.agents.all()]


@router.get("/agents/{name}")
async def show(request: Request, name: str, world: Here) -> dict[str, Any]:
    agent = await world.agents.find(name.lower())
    shown = await _shown(world, agent)
    if shown["machine"]:
        shown["machine"] |= box_of(request.app.state.links, shown["machine"]["id"])
    shown["alarms"] = [alarm.detail for alarm in await world.fleet.alarms.open() if alarm.agent_id == agent.id]
    shown["steps"] = [
        {
            **asdict(step),
            "started_at": step.started_at.isoformat(),
            "ended_at": step.ended_at and step.ended_at.isoformat(),
        }
        for step in await world.agents.steps(agent.id)
    ]
    return shown


@router.delete("/agents/{name}", status_code=202)
async def destroy(name: str, request: Request, world: Here) -> dict[str, Any]:
    """Asked again for one that could not be ended, it is tried again."""
    agent = await world.agents.find(name.lower())
    links: BoxLinks = request.app.state.links
    await world.agents.become(agent.id, AgentState.DESTROYING)
    for machine in await world.records.all_of_agent(agent.id):
        await world.records.unwanted(machine.id)
        await links.unwanted(machine.id)
    await world.engine.start(retire.FLOW, f"{retire.FLOW}:{agent.id}:{uuid.uuid4()}", agent.id)
    return {"id": agent.id, "name": agent.name, "state": AgentState.DESTROYING}


@router.get("/destroyed/{agent_id}")
async def destroyed(agent_id: uuid.UUID, world: Here) -> dict[str, Any]:
    agent = await world.agents.get(str(agent_id))
    return {"id": agent.id, "name": agent.name, "state": agent.state, "reason": agent.reason}


@router.post("/agents/{name}/senders")
async def allow(name: str, sender: Sender, world: Here) -> dict[str, Any]:
    """With the mails that wait for just this: proved to be from such a sender, and kept as a stranger's."""
    agent = await world.agents.find(name.lower())
    pattern = sender_pattern(sender.pattern)
    await world.agents.allow(agent.id, pattern)
    kept, _ = await world.ledger.list(agent.id, MAIL_LISTED, [MessageState.QUARANTINED])
    waiting = [one.id for one in kept if one.reason.endswith(NOT_ALLOWED) and sender_allowed([pattern], one.sender)]
    return {**await _shown(world, agent), "waiting": waiting}


@router.delete("/agents/{name}/senders/{pattern:path}")  # an address may hold a slash (RFC 5321 4.1.2)
async def deny(name: str, pattern: str, world: Here) -> dict[str, Any]:
    agent = await world.agents.find(name.lower())
    if sender_pattern(pattern) == agent.owner:
        raise ValueError(f"{agent.owner} owns {agent.name} and can always write to it.")
    removed = await world.agents.deny(agent.id, sender_pattern(pattern))
    return {**await _shown(world, agent), "removed": removed}


@router.get("/agents/{name}/logs")
async def logs(
    name: str, world: Here, after: int = 0, limit: Annotated[int, Query(ge=1, le=LOG_LINES_MAX)] = 200
) -> list[dict[str, Any]]:
    agent = await world.agents.find(name.lower())
    return [
        {"id": number, "at": line.at, "source": line.source, "text": line.text}
        for number, line in await world.records.log(agent.id, after, limit)
    ]


class MailPage(BaseModel):
    """Which messages: the newest `limit` that fit, or those before one of them."""

    limit: int = Field(default=MAIL_LISTED, ge=1, le=MAIL_LISTED_MAX)
    state: list[MessageState] = Field(default_factory=list, max_length=len(MessageState))  # none: every one
    before: str = Field(default="", max_length=100)  # a message's id, or its beginning


@router.get("/agents/{name}/mail")
async def mail_list(
    name: str, page: Annotated[MailPage, Query()], world: Here, response: Response
) -> list[dict[str, Any]]:
    """Oldest first. Where there are older ones, a Link header leads to them (RFC 8288)."""
    agent = await world.agents.find(name.lower())
    return await _listed(world, agent.id, page, response)


@router.get("/mail")
async def all_mail(page: Annotated[MailPage, Query()], world: Here, response: Response) -> list[dict[str, Any]]:
    """The same, of all agents."""
    return await _listed(world, "", page, response)


async def _listed(world: World, agent_id: str, page: MailPage, response: Response) -> list[dict[str, Any]]:
    messages, more = await world.ledger.list(agent_id, page.limit, page.state, page.before)
    if more:
        query = [("limit", page.limit), *(("state", state) for state in page.state), ("before", messages[0].id)]
        response.headers["Link"] = f'<?{urlencode(query)}>; rel="next"'
    return [_message(message) for message in messages]


@router.get("/operator-mail")
async def operator_mail(world: Here, limit: Annotated[int, Query(ge=1, le=MAIL_LISTED_MAX)] = MAIL_LISTED) -> list[Any]:
    """To postmaster@, abuse@ and their like, oldest first."""
    return [{**asdict(one), "at": one.at.isoformat()} for one in await world.operator_mails.list(limit)]


@router.get("/operator-mail/{row_id}")
async def operator_mail_show(row_id: str, world: Here) -> dict[str, Any]:
    one, raw = await world.operator_mails.get(row_id)
    mail = await world.mails.read_again(raw, "operator")
    return {
        **asdict(one),
        "at": one.at.isoformat(),
        "text": mail.text,
        "attachments": [{"filename": a.filename, "size": len(a.content)} for a in mail.attachments],
        "raw": raw.decode("utf-8", "replace"),
    }


@router.get("/mail/{row_id}")
async def mail_show(row_id: str, world: Here) -> dict[str, Any]:
    message, raw = await world.ledger.show(row_id)
    mail = await world.mails.read_again(raw, message.agent_id)
    shown = _message(message)
    shown["text"] = mail.text
    shown["attachments"] = [
        {"filename": a.filename, "media_type": a.media_type, "size": len(a.content)} for a in mail.attachments
    ]
    shown["raw"] = raw.decode("utf-8", "replace")
    if message.turn_id:
        shown["turn"] = await _turn(world, message.turn_id)
    return shown


@router.post("/mail/{row_id}/release")
async def mail_release(row_id: str, world: Here) -> dict[str, Any]:
    released = await world.ledger.release(row_id)
    if released.start_turn:
        await world.mail_turn.start(released.start_turn, 1)
    message, _ = await world.ledger.show(row_id)
    return _message(message)


@router.get("/status")
async def status(world: Here) -> dict[str, Any]:
    return await world.status()


@router.get("/outward")
async def outward(world: Here) -> list[dict[str, Any]]:
    """What this process needs of others, tried now."""
    return [asdict(one) for one in await world.outward.tried()]


def _one_owner_alone(owners: Sequence[str], sandbox: Means) -> str:
    return (
        f"Agents of {', '.join(owners)} run as processes of this host, and there an agent runs {sandbox.words}. For "
        "another owner say --machine KIND, a machine of its own; or trust all of them and set "
        "TINYFAT_PROCESS_SHARED=true."
    )


async def _foreign_name(world: World, name: str) -> str:
    """A provider of names that is slow does not hold up the answer: the flow asks it again."""
    try:
        async with asyncio.timeout(ZONE_SECONDS_MAX):
            return await world.fleet.addressing.foreign(name)
    except TimeoutError:
        return ""


async def _shown(world: World, agent: Agent) -> dict[str, Any]:
    machine = await world.records.of_agent(agent.id)
    shown: dict[str, Any] = {
        "id": agent.id,
        "name": agent.name,
        "address": f"{agent.name}@{world.settings.domain}",
        "owner": agent.owner,
        "allowed": await world.agents.senders(agent.id),
        "runtime": agent.runtime,
        "plan": agent.plan,
        "state": agent.state,
        "reason": agent.reason,
        "created_at": agent.created_at.isoformat(),
        "published": agent.published,
        "machine_kind": agent.machine_kind,
        "machine": None,
    }
    if machine:
        shown["machine"] = {
            "id": machine.id,
            "kind": machine.kind,
            "state": machine.link_state,
            "detail": machine.link_detail,
            "version": machine.version,
            "memory_bytes": machine.memory_bytes,
            "restarts": machine.restarts,
            "complaint": machine.identity_complaint,
            "seen_at": machine.seen_at and machine.seen_at.isoformat(),
            "hostname": machine.hostname,
            "ipv4": machine.ipv4,
            "ipv6": machine.ipv6,
            "location": machine.location,
            "image": machine.image,
            "size": machine.size,
            "generation": machine.generation,
            "month_nanodollars": machine.monthly_nanodollars,
        }
    return shown


async def _turn(world: World, turn_id: str) -> dict[str, Any]:
    row = await world.turns.load(turn_id)
    shown: dict[str, Any] = {"id": row.id, "state": row.state, "attempt": row.attempt}
    if row.result:
        failure, agent = row.result.failure, await world.agents.get(row.agent_id)
        shown |= {
            "outcome": row.result.outcome,
            "failure": failure.text(agent.name) if failure else "",
            "failure_id": failure.id if failure else "",
            "detail": row.result.detail,
            "asked_at": row.result.received_at,
            "answered_at": row.result.answered_at,
            "usage": row.result.usage,
        }
    return shown


def _message(message: Message) -> dict[str, Any]:
    shown = asdict(message)
    shown["at"] = message.at.isoformat()
    for moment in ("delivered_at", "body_gone_at"):
        shown[moment] = shown[moment].isoformat() if shown[moment] else None
    return shown
