"""One fault each, under load: what is killed, how often, and what may be seen afterwards."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import psutil

from tests.faults.claims import Verdict
from tests.faults.rig import Machine, Rig, kill, processes, running
from tests.running import OWNER, TinyFat, until
from tinyfat.flows.delivery import AT_ONCE_MAX  # deliveries under way: so many may be undecided at each kill

KILLED_IN_START = 0.25  # so many of the kills hit a control plane that is just starting
START_SECONDS = 2.0  # about what a start takes
FIRST_STARTS = 2  # of one home, that are killed
BACK_SECONDS_MAX = 60.0
RUNTIME_KILLS_MAX = 4  # of one runtime: at the fifth death in five minutes its box rests it, rightly
TROUBLE_SECONDS = 12.0
TROUBLE = 0.4

Scenario = Callable[[Rig, int], Awaitable[Verdict]]


async def control(rig: Rig, count: int) -> Verdict:
    """The control plane SIGKILLed at random points, its own start among them, and started again at once."""
    agents = ["ada", "bob", "eve"]
    plane = await rig.up("home", agents)
    async with rig.load(agents * 2):
        while rig.faults < count:
            # Half of the time before the flows of its earlier life have begun again, which takes it a second or two.
            await rig.pause(*rig.chance.choice([(0.0, 1.5), (1.5, 6.0)]))
            await plane.kill()
            rig.faults += 1
            if rig.chance.random() < KILLED_IN_START and rig.faults < count:
                await plane.start(wait=False)
                await rig.pause(0.0, START_SECONDS)
                await plane.kill()
                rig.faults += 1
            await plane.start()
    await rig.collect(plane, agents)
    return rig.verdict(repeats_max=AT_ONCE_MAX * count)


async def first(rig: Rig, count: int) -> Verdict:
    """The control plane SIGKILLed in the first start on a new home, and while its first agent is made."""
    for number in range(count):
        agent = f"first{number}"
        plane = rig.plane(f"home{number}")
        rig.senders_know = [plane]
        for _ in range(FIRST_STARTS):
            await plane.start(wait=False)
            await rig.pause(0.0, START_SECONDS * 1.5)
            await plane.kill()
            rig.faults += 1
        async with running(plane):
            await plane.command("agent", "create", agent, "--owner", OWNER, "--runtime", "echo")
            await rig.pause(0.0, START_SECONDS)
            await plane.kill()
            rig.faults += 1
            await plane.start()
            await until(partial(_ready, plane, agent), BACK_SECONDS_MAX, f"{agent} is ready")
            conversation = rig.sender.begin(agent, agent)
            for _ in range(3):
                await rig.sender.write(conversation, rig.chance)
            await rig.collect(plane, [agent])
    return rig.verdict(repeats_max=AT_ONCE_MAX * count)


async def _ready(plane: TinyFat, agent: str) -> bool:
    state = (await plane.json("agent", "show", agent))["state"]
    assert state in ("creating", "ready"), f"{agent} is {state}"
    return bool(state == "ready")


async def database(rig: Rig, count: int) -> Verdict:
    """The embedded Postgres stopped fast, stopped at once, killed, or one of its processes killed, in turn."""
    agents = ["ada", "bob"]
    plane = await rig.up("home", agents)
    async with rig.load(["ada", "ada", "bob", "bob"]):
        for number in range(count):
            await rig.pause(0.3, 2.0)
            await break_database(rig, plane, number % 4)
            rig.faults += 1
    await rig.collect(plane, agents)
    return rig.verdict(repeats_max=AT_ONCE_MAX * count)


async def break_database(rig: Rig, plane: TinyFat, how: int) -> None:
    """`how`: 0 stopped fast, 1 stopped at once, 2 killed, 3 one of its processes killed. Returns when it is back."""
    postmaster = _postmaster(plane)
    assert postmaster is not None, "the database that should be broken does not run"
    if how == 3:  # one backend gone by SIGKILL: the postmaster ends all sessions and recovers
        victim = rig.chance.choice(postmaster.children())
        kill(victim.pid)
    else:
        kill(postmaster.pid, (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)[how])

    async def gone() -> bool:
        return how == 3 or not postmaster.is_running() or postmaster.status() == psutil.STATUS_ZOMBIE

    async def back() -> bool:
        """What /readyz says may be a second old, and was well then."""
        found = _postmaster(plane)
        return found is not None and (how == 3 or found.pid != postmaster.pid)

    await until(gone, BACK_SECONDS_MAX, "the database stopped")
    await until(back, BACK_SECONDS_MAX, "the database was started again")
    await plane.ready()


def _postmaster(plane: TinyFat) -> psutil.Process | None:
    try:
        return psutil.Process(int((plane.home / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0]))
    except (OSError, ValueError, psutil.Error):
        return None


async def host(rig: Rig, count: int) -> Verdict:
    """The whole host: control plane, database, boxes and runtimes killed in one moment, and started again."""
    agents = ["ada", "bob", "eve"]
    plane = await rig.up("home", agents)
    async with rig.load(agents * 2):
        for _ in range(count):
            await rig.pause(1.0, 4.0)
            victims = processes(plane)
            assert len(victims) > 2 * len(agents), f"only these run: {victims}"
            for victim in victims:
                kill(victim.pid)
            await plane.kill()
            rig.faults += 1
            await plane.start()
    await rig.collect(plane, agents)
    return rig.verdict(repeats_max=AT_ONCE_MAX * count)


async def box(rig: Rig, count: int) -> Verdict:
    """The box killed in mid-turn, one agent's or another's; its control plane starts it again."""
    agents = ["ada", "bob", "eve"]
    plane = await rig.up("home", agents)
    async with rig.load(agents * 2):
        for number in range(count):
            await kill_box(rig, Machine(plane, agents[number % len(agents)]))
    await rig.collect(plane, agents)
    return rig.verdict()


async def kill_box(rig: Rig, machine: Machine) -> None:
    """In mid-turn; returns when another one runs."""
    await machine.in_turn()
    await rig.pause(0.0, 0.4)
    pid = machine.box_pid()
    rig.faults += kill(pid)
    await another(machine.box_pid, pid, f"the box of {machine.agent} is back")


async def runtime(rig: Rig, count: int) -> Verdict:
    """The runtime killed in mid-turn; its box starts it again, and the turn goes on."""
    agents = [f"agent{number}" for number in range(max(3, -(-count // RUNTIME_KILLS_MAX)))]
    plane = await rig.up("home", agents)
    async with rig.load(agents if len(agents) > 4 else agents * 2):
        for number in range(count):
            await kill_runtime(rig, Machine(plane, agents[number % len(agents)]))
    await rig.collect(plane, agents)
    return rig.verdict()


async def kill_runtime(rig: Rig, machine: Machine) -> None:
    """In mid-turn; returns when another one runs."""
    await machine.in_turn()
    await rig.pause(0.0, 0.25)
    pid = machine.runtime_pid()
    rig.faults += kill(pid)
    await another(machine.runtime_pid, pid, f"the runtime of {machine.agent} is back")


async def another(pid_now: Callable[[], int | None], old: int | None, what: str) -> None:
    async def back() -> bool:
        return pid_now() not in (None, old) and psutil.pid_exists(pid_now() or 0)

    await until(back, BACK_SECONDS_MAX, what)


async def smarthost(rig: Rig, count: int) -> Verdict:
    """The smarthost defers, and breaks connections before and after it kept a mail, `count` times over."""
    agents = ["ada", "bob"]
    plane = await rig.up("home", agents)
    async with rig.load(agents * 4):
        for _ in range(count):
            rig.smarthost.trouble = TROUBLE
            await asyncio.sleep(TROUBLE_SECONDS)
            rig.smarthost.trouble = 0.0
            rig.faults = rig.smarthost.troubles.total()
            await rig.pause(1.0, 2.0)
    rig.say(", ".join(f"{times} x {trouble}" for trouble, times in rig.smarthost.troubles.items()))
    await rig.collect(plane, agents)
    return rig.verdict(repeats_max=rig.smarthost.lost_answers)
