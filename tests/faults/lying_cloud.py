"""`python -m tests.faults.lying_cloud`: a provider that lies, a control plane that is killed; in the end all agrees.

    --runs N      so many runs, each with its own seed: SEED, SEED + 1, ...
    --seed S      the first run's; one run again: --runs 1 --seed S
    --jobs J      so many processes

A run: each lie alone in its turn and random pairs of them, in each flow in its turn, the process killed up to three
times. While the lies last no agent may have two machines, and where lists tell the truth, whatever the ledger does not
know is named by an alarm. Then the lies end, hours pass, and the reconciliation looks. What is there must be what the
ledger says, or an alarm or a reason names it. Then the operator destroys every agent and wants no pool: nothing may be
left of either.
Exit code 0 only if that held in every run.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import random
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.lying_cloud_verdict import disagreements, leftovers, two, unknown
from tests.faults.lying_cloud_world import KIND, LOCATIONS, Death, LyingWorld, lying_world
from tests.flows.crashing import Crashed
from tests.machine_speed import patient
from tests.postgres import Server, _prepare
from tinyfat.domain.agents import Agent, AgentState, Place
from tinyfat.domain.machines import MachineOrder, ServerOrder
from tinyfat.engine.steps import Flow
from tinyfat.flows import reconcile
from tinyfat.flows.replace import Replacement
from tinyfat.ports.machines import MachinesError
from tinyfat.standins.lies import read_lie
from tinyfat.store.database import Database

LIES = (
    "stop-runs-on", "delete-stays", "create-504", "ip-changes", "action-hangs", "volume-stays", "error-500",
    "rate-limited", "list-late", "capacity",
)  # fmt: skip
LISTS_LIE = ("error-500", "rate-limited", "list-late")  # what is there cannot be told while they last
PAIR_PROBABILITY = 0.5
FOREVER_PROBABILITY = 0.25  # or as long as the lies last
TIMES_MAX = 6
DEATHS_MAX = 3
CALLS_MAX = 40  # of which one is a process's last
STEPS_MAX = 8
LOOKS_MAX = 30  # of which one is when an agent is destroyed while it is made
PAST = reconcile.ORPHAN_SECONDS + reconcile.GHOST_SECONDS
COMPARED = 3  # an orphan is told to go, is seen to be gone, and then nothing is said of it
RUN_SECONDS_MAX = 120.0
JOBS = 2
SLOWEST_SHOWN = 5


@dataclass(slots=True)
class Told:
    """One run's end. `complaints`: what did not hold."""

    seed: int
    flow: str
    lies: tuple[str, ...]
    end: str = ""
    deaths: int = 0
    told: dict[str, int] = field(default_factory=dict)  # how often each lie was
    seconds: float = 0.0
    complaints: list[str] = field(default_factory=list)


class Run:
    def __init__(self, world: LyingWorld, seed: int, lies: tuple[str, ...]) -> None:
        self.world, self.lies = world, lies
        self.chance = random.Random(f"deaths {seed}")

    def lie(self) -> None:
        for text in self.lies:
            self.world.provider.cloud.lies.add(read_lie(text, "servers"))

    def deaths(self) -> list[Death]:
        return [self._death() for _ in range(self.chance.randint(0, DEATHS_MAX))]

    def _death(self) -> Death:
        done = self.chance.random() < 0.5
        if self.chance.random() < 0.75:
            return "call", self.chance.randint(0, CALLS_MAX), done
        return "step", self.chance.randint(0, STEPS_MAX), done

    async def made(self, place: Place | None = None) -> Agent:
        """Honestly."""
        agent = await self.world.new_agent("ada", KIND, place or Place(location=self.chance.choice(("", *LOCATIONS))))
        await self.world.honest(self.world.provision.run, agent.id)
        agent = await self.world.agents.get(agent.id)
        assert agent.state is AgentState.READY, f"without a lie: {agent.reason}"
        return agent

    async def retired(self, agent: Agent, deaths: list[Death]) -> None:
        await self.world.agents.become(agent.id, AgentState.DESTROYING)
        await self.world.through(self.world.retire.run, agent.id, deaths)

    async def compared(self) -> None:
        """By a process that may die of it; the next beat goes on."""
        try:
            if deaths := self.deaths():
                self.world.life.calls_left, self.world.life.after = deaths[0][1], deaths[0][2]
            await self.world.compare()
            self.world.life.calls_left = None
        except Crashed:
            self.world.deaths += 1
            self.world.reborn()


async def provision(run: Run) -> None:
    agent = await run.world.new_agent("ada", KIND, Place(location=run.chance.choice(("", *LOCATIONS))))
    run.lie()
    await run.world.through(run.world.provision.run, agent.id, run.deaths())


async def destroyed_meanwhile(run: Run) -> None:
    """`agent destroy` while its first machine, or its next one, is being made: both flows at once."""
    flow: Flow = run.world.provision.run
    if replaced := run.chance.random() < 0.5:
        agent, flow = await run.made(), run.world.replace.run
        assert await run.world.servers.begin_replacing(agent.id, agent.replacing + 1)
    else:
        agent = await run.world.new_agent("ada", KIND)
    run.lie()
    run.world.at_a_look = lambda: run.retired(agent, run.deaths())
    run.world.looks_before_it = run.chance.randint(0, LOOKS_MAX)
    await run.world.through(flow, f"{agent.id}:{agent.replacing + 1}" if replaced else agent.id, run.deaths())
    if run.world.at_a_look is not None:
        run.world.at_a_look = None
        await run.retired(agent, run.deaths())


async def retire(run: Run) -> None:
    agent = await run.made()
    run.lie()
    await run.retired(agent, run.deaths())


async def replace(run: Run) -> None:
    agent = await run.made()
    generation = agent.replacing + 1
    assert await run.world.servers.begin_replacing(agent.id, generation)
    run.lie()
    await run.world.through(run.world.replace.run, f"{agent.id}:{generation}", run.deaths())


async def without_state(run: Run) -> None:
    """Replaced while the old machine runs, has stopped, or is gone at the provider: nothing is asked of its box."""
    agent = await run.made()
    generation = agent.replacing + 1
    [name] = run.world.hosted()
    host = run.world.provider.cloud.machines
    match run.chance.choice(("runs", "stopped", "gone")):
        case "stopped":
            await host.stop(name)
        case "gone":
            [server] = list(run.world.provider.cloud.servers.values())
            connection = run.world.opened[-1]
            await connection.call("delete it by hand", lambda api: api.servers.get_by_id(server.id).delete())
            await run.world.pass_time(60.0)
        case _:
            pass
    assert await run.world.servers.begin_replacing(agent.id, generation)
    run.lie()
    subject = Replacement(agent.id, generation, without_state=True).subject
    await run.world.through(run.world.replace.run, subject, run.deaths())


async def pool(run: Run) -> None:
    """Filled, claimed, filled again, compared."""
    if run.chance.random() < 0.5:
        run.lie()
    waiting = run.world.warm_pool(fsn1=1, nbg1=1)
    await waiting.sweep()
    await run.world.drain(run.deaths)
    if not run.world.provider.cloud.lies.wire()["lies"]:
        run.lie()
    agent = await run.world.new_agent("ada", KIND)
    await run.world.through(run.world.provision.run, agent.id, run.deaths())
    await waiting.sweep()
    await run.world.drain(run.deaths)
    await run.compared()


async def compare(run: Run) -> None:
    """A server that fell over, an orphan and its volume; the reconciliation looks, and dies of it."""
    agent = await run.made()
    await _orphan(run.world)
    [machine] = await run.world.records.all_of_agent(agent.id)
    host = run.world.provider.cloud.machines
    if run.chance.random() < 0.5:
        [server] = [one for one in run.world.provider.cloud.servers.values() if one.name.endswith(machine.id)]
        await host.stop(run.world.provider.cloud.machine_name(server.id))
    run.lie()
    for _ in range(COMPARED):
        await run.compared()
        await run.world.pass_time(run.chance.choice((300.0, PAST)))


async def _orphan(world: LyingWorld) -> None:
    machine_id = "0f9e8d7c-0000-4000-8000-000000000001"
    server = ServerOrder("x", "https://x", "", "t", "0" * 64, world.orders.terms.ssh_ca)
    order = MachineOrder(machine_id, "eve", "echo", "wss://x", "t", server)

    async def there() -> bool:
        try:
            await world.driver.start(order)
        except MachinesError:
            return False
        return machine_id in world.running()

    assert await world.until(there, 120.0), "the orphan is not there"
    [one] = [one for one in world.provider.cloud.servers.values() if one.name.endswith(machine_id)]
    labels = dict(one.labels)
    connection = world.opened[-1]
    made = await connection.call(
        "make a volume",
        lambda api: api.volumes.create(10, "orphan", labels=labels, server=api.servers.get_by_id(one.id)),
    )
    assert made.volume is not None


FLOWS: dict[str, Callable[[Run], Awaitable[None]]] = {
    "provision": provision, "destroyed": destroyed_meanwhile, "retire": retire, "replace": replace, "pool": pool,
    "reconcile": compare, "without state": without_state,
}  # fmt: skip


def plan(seed: int) -> tuple[str, tuple[str, ...]]:
    """The flow and the lies: every lie in every flow in turn, and mostly a second one by chance. Pure."""
    chance = random.Random(f"plan {seed}")
    flow = list(FLOWS)[seed % len(FLOWS)]
    lies = [LIES[seed // len(FLOWS) % len(LIES)]]
    if chance.random() < PAIR_PROBABILITY:
        lies.append(chance.choice([lie for lie in LIES if lie not in lies]))
    return flow, tuple(_spelt(lie, chance) for lie in lies)


def _spelt(lie: str, chance: random.Random) -> str:
    part = chance.choice(["", *(f":{place}" for place in LOCATIONS)]) if lie == "capacity" else ""
    if lie == "create-504":
        part = chance.choice([":servers", ":primary_ips", ":firewalls"])
    return f"{lie}{part}" if chance.random() < FOREVER_PROBABILITY else f"{lie}{part}={chance.randint(1, TIMES_MAX)}"


async def one(database: Database, seed: int) -> Told:
    flow, lies = plan(seed)
    told, began = Told(seed, flow, lies), time.monotonic()
    try:
        async with asyncio.timeout(patient(RUN_SECONDS_MAX)), lying_world(database, seed) as world:
            await FLOWS[flow](Run(world, seed, lies))
            await _judge(world, told)
            told.deaths = world.deaths
    except Exception:
        told.complaints.append(traceback.format_exc())
    told.end = "BROKEN" if told.complaints else told.end
    told.seconds = time.monotonic() - began
    return told


async def _judge(world: LyingWorld, told: Told) -> None:
    told.complaints += [f"while it lied: {words}" for words in await two(world)]
    if not any(lie.startswith(LISTS_LIE) for lie in told.lies):
        await world.compare()
        told.complaints += [f"while it lied: {words}" for words in await unknown(world)]
    told.told = dict(world.provider.cloud.lies.told)
    world.provider.cloud.lies.clear()
    for _ in range(COMPARED):
        await world.pass_time(PAST)
        await world.compare()
    told.complaints += await disagreements(world)
    told.end = await _end(world)
    for agent in await world.agents.all():
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await world.honest(world.retire.run, agent.id)
    for _ in range(COMPARED):
        await world.warm_pool().sweep()
        await world.drain(list)
        await world.pass_time(PAST)
        await world.compare()
    told.complaints += [f"after the operator destroyed all: {words}" for words in await leftovers(world)]


async def _end(world: LyingWorld) -> str:
    """The agent's state, and whether something is said about it."""
    [(state, reason)] = await world.rows("select state, reason from agents")
    alarms = sorted({str(alarm.kind) for alarm in await world.alarms.open()})
    return ", ".join([f"{state} (told why)" if reason else str(state), *alarms])


async def several(home: Path, seeds: Iterable[int], tell: Callable[[Told], None]) -> None:
    """One after the other, in a Postgres of their own."""
    server = Server(home)
    await _prepare(server)
    try:
        for seed in seeds:
            async with server.database() as database:
                async with database.connection() as connection:
                    await connection.execute("truncate alarms, machines, addresses, dns_names restart identity cascade")
                tell(await one(database, seed))
    finally:
        await server.postgres.stop()


def _worker(folder: str, seeds: list[int], queue: multiprocessing.Queue[Told]) -> None:
    logging.disable(logging.CRITICAL)
    asyncio.run(several(Path(folder), seeds, queue.put))


def in_parallel(seeds: list[int], jobs: int) -> Iterator[Told]:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[Told] = context.Queue()
    with tempfile.TemporaryDirectory(prefix="tinyfat-lying-") as folder:
        workers = [
            context.Process(target=_worker, args=(f"{folder}/{job}", seeds[job::jobs], queue)) for job in range(jobs)
        ]
        for worker in workers:
            worker.start()
        for _ in seeds:
            yield queue.get(timeout=RUN_SECONDS_MAX * 2)
        for worker in workers:
            worker.join()


def show(results: list[Told]) -> None:
    """Per lie, how its runs ended."""
    ends: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for told in results:
        for lie in told.lies:
            ends[lie.partition("=")[0].partition(":")[0]][told.end] += 1
    for lie in LIES:
        counts = "; ".join(f"{count} {end}" for end, count in ends[lie].most_common())
        times = sum(told.told.get(lie, 0) for told in results)
        print(f"{lie:>14}  told {times:5} times in {sum(ends[lie].values()):3} runs: {counts}")
    flows = Counter(told.flow for told in results)
    print(f"{sum(told.deaths for told in results)} kills; runs by flow: {dict(flows)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.lying_cloud", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=JOBS)
    return parser.parse_args()


def main() -> int:
    given = arguments()
    print(f"seeds {given.seed} to {given.seed + given.runs - 1}", flush=True)
    seeds = list(range(given.seed, given.seed + given.runs))
    results, began = [], time.monotonic()
    for told in in_parallel(seeds, min(given.jobs, len(seeds))):
        results.append(told)
        if told.complaints:
            print(f"seed {told.seed}: {told.flow} with {', '.join(told.lies)}:", flush=True)
            print("".join(f"    {words}\n" for words in told.complaints), flush=True)
    show(results)
    broken = sorted(told.seed for told in results if told.complaints)
    print(f"{len(results)} runs in {time.monotonic() - began:.0f} s; broken: {broken or 'none'}")
    slowest = sorted(results, key=lambda told: -told.seconds)[:SLOWEST_SHOWN]
    print(f"slowest: {', '.join(f'{told.seed} ({told.flow}, {told.seconds:.0f} s)' for told in slowest)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
