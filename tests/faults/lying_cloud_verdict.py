"""Does the ledger agree with what is really there? What disagrees must be named by an alarm or a reason."""

from __future__ import annotations

from tests.faults.lying_cloud_world import KIND, LyingWorld
from tests.flows.small_world import DOMAIN
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.machines import Machine, MachineState
from tinyfat.drivers.machines.hetzner.labels import ADDRESS, MACHINE
from tinyfat.flows.orders import machine_id_of
from tinyfat.ports.server_ledger import Alarm

GENERATIONS = 3  # a run replaces a machine once
_ADDRESS_TYPES = {"A": "ipv4", "AAAA": "ipv6"}


async def disagreements(world: LyingWorld) -> list[str]:
    """Nothing unknown, never two, what is READY runs, what is gone is gone."""
    await world.provider.standin.up_to_date()
    alarms = await world.alarms.open()
    machines = {machine.id: machine for machine in await world.servers.all(KIND)}
    agents = {agent.id: agent for agent in await world.agents.all()}
    found = await unknown(world) + await two(world)
    for agent in agents.values():
        own = [machine for machine in machines.values() if machine.agent_id == agent.id]
        found += await _of_agent(world, agent, own, alarms)
    found += [
        f"the machine {machine.id} is of an agent that is gone"
        for machine in machines.values()
        if machine.agent_id and machine.agent_id not in agents
    ]
    return found


async def leftovers(world: LyingWorld) -> list[str]:
    """Once every agent is destroyed and no pool is wanted: nothing of ours is there, and nothing is written down."""
    await world.provider.standin.up_to_date()
    cloud = world.provider.cloud
    found = [f"the machine {name} is {state} on the host" for name, state in world.hosted().items()]
    found += [f"the server {server.name} is listed as {server.status}" for server in cloud.servers.values()]
    found += [f"the address {one.name} ({one.ip}) is there" for one in cloud.primary_ips.values()]
    found += [f"the volume {one.name} is there" for one in cloud.volumes.values()]
    found += [f"the firewall {one.name} is there" for one in cloud.firewalls.values()]
    found += [f"the record {name} {kind} is there" for name, kind in _records(world)]
    found += [f"the ledger has the machine {machine.id}" for machine in await world.servers.all(KIND)]
    found += [f"the ledger has the address {one.id}" for one in await world.addresses.all(KIND)]
    found += [f"the ledger has the name {one.name}" for one in await world.names.all()]
    found += [f"an agent is {agent.state}: {agent.reason}" for agent in await world.agents.all()]
    found += [f"an alarm is open: {one.kind} {one.subject}: {one.detail}" for one in await world.alarms.open()]
    return found


async def two(world: LyingWorld) -> list[str]:
    """Agents with two machines that run, or that are to answer, and nothing says why. Holds while lies are told too."""
    found = []
    alarmed = {alarm.agent_id for alarm in await world.alarms.open()}
    machines = await world.servers.all(KIND)
    for agent in await world.agents.all():
        own = {machine.id for machine in machines if machine.agent_id == agent.id}
        own |= {machine_id_of(agent.id, number + 1) for number in range(GENERATIONS)}
        running = len(own & world.running())
        current = sum(machine.current and machine.wanted for machine in machines if machine.agent_id == agent.id)
        if current > 1:
            found.append(f"{agent.name} has {current} current machines")
        if running > 1 and not agent.reason and agent.id not in alarmed:
            found.append(f"{agent.name} has {running} machines that run, and nothing says why")
    return found


async def unknown(world: LyingWorld) -> list[str]:
    """What is there, is not in the ledger, and is named by no alarm."""
    cloud = world.provider.cloud
    machines = {machine.id for machine in await world.servers.all(KIND)}
    named = {alarm.subject.rpartition(" ")[2] for alarm in await world.alarms.open()}
    of_host = {cloud.machine_name(server.id) for server in cloud.servers.values()}
    found = [f"{name} is on the host, and no server of the API" for name in world.hosted() if name not in of_host]
    for server in cloud.servers.values():
        if server.labels.get(MACHINE) not in machines and str(server.id) not in named:
            found.append(f"the server {server.name} ({server.status}) is unknown, and no alarm names it")
    addresses = {one.id for one in await world.addresses.all(KIND)}
    for address in cloud.primary_ips.values():
        if address.labels.get(ADDRESS) not in addresses and str(address.id) not in named and not address.auto_delete:
            found.append(f"the address {address.name} is unknown, and no alarm names it")
    names = {one.name for one in await world.names.all()}
    found += [f"the name {name} is unknown" for name, _ in _records(world) if name not in names | named]
    return found


async def _of_agent(world: LyingWorld, agent: Agent, own: list[Machine], alarms: list[Alarm]) -> list[str]:
    told = [alarm for alarm in alarms if alarm.agent_id == agent.id]
    current = [machine for machine in own if machine.current and machine.wanted]
    if agent.state is AgentState.READY:
        if told:
            return []
        return _ready(world, agent, own, current)
    if agent.state is AgentState.CREATING or not agent.reason:
        return [f"{agent.name} is {agent.state} when all is over, and says: {agent.reason or 'nothing'}"]
    left = [f"the machine {machine.id}" for machine in own]
    left += [f"the address {address.id}" for address in await world.addresses.of_agent(agent.id)]
    left += [f"the name {name}" for name in await world.names.of_agent(agent.id)]
    why_not_undone = agent.state is AgentState.DESTROYING or " And: " in agent.reason
    if left and not why_not_undone and not told:
        return [
            f"{agent.name} is {agent.state}, has {', '.join(left)}, and its reason tells other things: {agent.reason}"
        ]
    return []


def _ready(world: LyingWorld, agent: Agent, own: list[Machine], current: list[Machine]) -> list[str]:
    if not current:
        return [f"{agent.name} is READY without a machine"]
    if len(own) > 1 and not agent.reason:
        return [f"{agent.name} has {len(own)} machines, and nothing says why"]
    machine = current[0]
    if machine.id not in world.running():
        return [f"{agent.name} is READY, and its machine does not run"]
    cloud = world.provider.cloud
    [server] = [one for one in cloud.servers.values() if one.labels.get(MACHINE) == machine.id]
    found = []
    for record, family in _ADDRESS_TYPES.items():
        there = cloud.primary_ips.get((server.ipv4 if family == "ipv4" else server.ipv6) or 0)
        if there is None or there.labels.get(ADDRESS) != agent.address_id:
            found.append(f"the server of {agent.name} has not its own {family}")
        elif family == "ipv4" and _records(world).get((f"{agent.name}.{DOMAIN}", record)) != [there.ip]:
            found.append(f"the name of {agent.name} does not lead to {there.ip}")
        elif family == "ipv4" and machine.ipv4 != there.ip:
            found.append(f"the ledger says {machine.ipv4} of {agent.name}, which has {there.ip}")
    hosted = cloud.machines.machines_by_name[cloud.machine_name(server.id)]  # type: ignore[attr-defined]
    if hosted.state is not MachineState.RUNNING or (hosted.address and hosted.address.ipv4 != machine.ipv4):
        found.append(f"the machine of {agent.name} answers at {hosted.address}, not at {machine.ipv4}")
    return found


def _records(world: LyingWorld) -> dict[tuple[str, str], list[str]]:
    """Those of agents: a zone's own SOA and NS are not ours."""
    cloud = world.provider.cloud
    return {
        (f"{one.name}.{DOMAIN}", one.type): [record["value"] for record in one.records]
        for one in cloud.rrsets.values()
        if one.type in _ADDRESS_TYPES
    }
