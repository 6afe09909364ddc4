"""An image is made of a machine and tried by another, and whatever happens neither is left.

Over the twin in memory and over the driver for Hetzner at its stand-in; what machines say is the test's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from tests.drivers.hetzner_project import Project, order, project
from tests.running import until
from tinyfat.domain.link import RuntimeState, Status
from tinyfat.domain.machines import BilledKind, MachineOrder, MachineState
from tinyfat.domain.turns import TurnOutcome, TurnResult
from tinyfat.drivers.machines.memory_servers import MemoryServers
from tinyfat.flows import image_making
from tinyfat.flows.image_making import ImageMaking, ImageNotMade
from tinyfat.ports.machines import MachineRefused, MachinesError, Servers

IMAGE = "echo-box-1a2b3c4d-debian-12"
READY = Status(RuntimeState.READY)
ANSWERED = TurnResult(TurnOutcome.ANSWERED, "Yes.")
PATIENCE = ("ORDER", "READY", "ANSWER", "STOPPED", "COPIED", "GONE")


@dataclass
class Said:
    """Implements ports/image_reception Reception: `status` and `answer` are what a machine says."""

    status: Status | None = READY
    answer: TurnResult | None = ANSWERED
    sealing: Callable[[], None] = lambda: None
    last_lines: str = "its last line"
    asked: list[str] = field(default_factory=list)
    before_asked: Callable[[], Awaitable[object]] | None = None
    noted: object = None

    def expect(
        self, machine_id: str, runtime: str, image: str, runtime_sha256: str = "", makes: str = ""
    ) -> MachineOrder:
        raise NotImplementedError  # the test orders

    async def ask(self, turn_id: str, text: str) -> None:
        self.noted = await self.before_asked() if self.before_asked else None
        self.asked.append(text)

    @property
    def result(self) -> TurnResult | None:
        return self.answer if self.asked else None

    async def seal(self) -> None:
        self.sealing()


class Cloud(Protocol):
    @property
    def servers(self) -> Servers: ...

    def power_goes(self, machine_id: str) -> None:
        """As the machine itself does it."""


class Memory:
    def __init__(self) -> None:
        self.servers = MemoryServers()

    def power_goes(self, machine_id: str) -> None:
        self.servers.crash(machine_id)


class Hetzner:
    def __init__(self, here: Project) -> None:
        self._here = here
        self.servers = here.servers()

    def power_goes(self, machine_id: str) -> None:
        (number,) = [one.id for one in self._here.cloud.servers.values() if one.name == f"tinyfat-{machine_id}"]
        host = self._here.cloud.host
        assert host is not None
        self.going = asyncio.get_running_loop().create_task(host.stop(self._here.cloud.machine_name(number)))


@pytest.fixture(params=["memory", "hetzner"])
async def cloud(request: pytest.FixtureRequest) -> AsyncIterator[Cloud]:
    if request.param == "memory":
        yield Memory()
        return
    async with project(action_seconds=0.01) as here:
        yield Hetzner(here)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PATIENCE:
        monkeypatch.setattr(image_making, f"{name}_SECONDS_MAX", 0.3)


async def servers_billed(servers: Servers) -> list[str]:
    return [one.name for one in await servers.billed() if one.kind is BilledKind.SERVER]


async def numbers(servers: Servers) -> list[object]:
    """Which machines those are, whatever they are called."""
    if isinstance(servers, MemoryServers):
        return list(servers.began)
    found = [one for one in await servers.billed() if one.kind is BilledKind.SERVER]
    return [(one.provider_id, one.created_at) for one in found]


def removing(servers: Servers) -> image_making.Removing:
    return lambda: servers.remove_image(IMAGE)


async def images(servers: Servers) -> list[str]:
    return [image.name for image in await servers.images()]


async def test_a_builder_becomes_an_image_that_is_tried_and_both_machines_are_gone(cloud: Cloud) -> None:
    builder, trial, said, lines = order(""), order(""), Said(), list[str]()
    said.sealing = lambda: cloud.power_goes(builder.id)
    making = ImageMaking(cloud.servers, said, lines.append)

    await making.make(cloud.servers, builder, IMAGE, sealed=True)
    assert await servers_billed(cloud.servers) == []
    assert await images(cloud.servers) == [IMAGE]
    await making.try_out(trial, IMAGE, removing(cloud.servers), fresh=True)

    assert len(said.asked) == 2
    assert await servers_billed(cloud.servers) == []
    assert await images(cloud.servers) == [IMAGE]


async def test_what_a_killed_build_left_goes_before_it_begins_again(cloud: Cloud) -> None:
    builder, said = order(""), Said()
    said.sealing = lambda: cloud.power_goes(builder.id)

    async def runs() -> bool:
        await cloud.servers.start(builder)
        return (await cloud.servers.look(builder.id)).state is MachineState.RUNNING

    await until(runs, 10.0, "the old builder runs")
    said.before_asked = lambda: numbers(cloud.servers)
    before = await numbers(cloud.servers)
    await ImageMaking(cloud.servers, said, print).make(cloud.servers, builder, IMAGE, sealed=True)

    assert said.noted != before, "another machine was asked than the old one"
    assert await servers_billed(cloud.servers) == []
    assert await images(cloud.servers) == [IMAGE]


COMPLAINTS = [
    (Said(status=None), "did not call https://control.example.org:8443"),
    (Said(status=Status(RuntimeState.CRASH_LOOP, "it ended with 1")), "crash-loop: it ended with 1"),
    (Said(status=Status(RuntimeState.INSTALLING, "41 s")), "installing: 41 s"),
    (Said(answer=None), "no answer"),
    (Said(answer=TurnResult(TurnOutcome.ANSWERED, " ")), "an empty answer"),
    (Said(answer=TurnResult(TurnOutcome.FAILED, detail="out of memory")), "out of memory"),
    (Said(), "did not stop"),  # told to forget who it is, it runs on
]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("said", "words"), COMPLAINTS, ids=[words for _, words in COMPLAINTS])
async def test_a_builder_that_does_not_get_there_is_gone_and_says_why(said: Said, words: str) -> None:
    servers, builder = MemoryServers(), order("")
    said.asked.clear()
    with pytest.raises(ImageNotMade, match=words):
        await ImageMaking(servers, said, print).make(servers, builder, IMAGE, sealed=True)
    assert await servers_billed(servers) == []
    assert await images(servers) == []


async def with_image(servers: MemoryServers) -> None:
    made = order("")
    await servers.start(made)
    await servers.stop(made.id)
    await servers.snapshot(made.id, IMAGE)
    await servers.delete(made.id)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fresh", [True, False])
async def test_an_image_whose_agent_does_not_answer_is_removed_and_said(fresh: bool) -> None:
    servers = MemoryServers()
    await with_image(servers)
    making = ImageMaking(servers, Said(answer=None), print)
    with pytest.raises(ImageNotMade, match=rf"{IMAGE} was removed\. The agent did not answer"):
        await making.try_out(order(""), IMAGE, removing(servers), fresh=fresh)
    assert await images(servers) == []
    assert await servers_billed(servers) == []


@pytest.mark.parametrize(("fresh", "left"), [(True, []), (False, [IMAGE])])
async def test_of_what_could_not_be_tried_only_the_new_is_removed(fresh: bool, left: list[str]) -> None:
    """A provider without a place for the trial says nothing about an image that was good before."""
    servers = MemoryServers()
    await with_image(servers)
    servers.lies.refuse_starts = 1
    with pytest.raises((MachineRefused, ImageNotMade), match="no room left"):
        await ImageMaking(servers, Said(), print).try_out(order(""), IMAGE, removing(servers), fresh=fresh)
    assert await images(servers) == left


async def test_an_image_that_cannot_be_removed_is_called_no_good() -> None:
    servers = MemoryServers()
    await with_image(servers)

    async def refused() -> bool:
        raise MachineRefused("machine m1 is made of it")

    with pytest.raises(ImageNotMade, match=r"is no good, and could not be removed \(machine m1 is made of it\)"):
        await ImageMaking(servers, Said(status=Status(RuntimeState.CRASH_LOOP)), print).try_out(
            order(""), IMAGE, refused, fresh=False
        )


async def test_a_refused_order_leaves_nothing() -> None:
    servers = MemoryServers()
    servers.lies.refuse_starts = 1
    with pytest.raises(MachineRefused):
        await ImageMaking(servers, Said(), print).try_out(order(""), IMAGE, removing(servers), fresh=False)
    assert await servers_billed(servers) == []


async def test_interrupted_it_still_leaves_nothing(cloud: Cloud) -> None:
    """Ctrl-C while the machine boots."""
    said = Said(status=None)
    lines: list[str] = []
    trial = ImageMaking(cloud.servers, said, lines.append).try_out(
        order(""), IMAGE, removing(cloud.servers), fresh=False
    )
    making = asyncio.create_task(trial)

    async def boots() -> bool:
        assert not making.done()
        return "it boots, and its agent starts" in lines

    await until(boots, 10.0, "the machine boots")
    assert len(await servers_billed(cloud.servers)) == 1
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert await servers_billed(cloud.servers) == []


async def test_a_provider_that_says_deleted_and_bills_on_is_asked_again() -> None:
    servers = MemoryServers()
    servers.lies.delete_nothing, servers.lies.create_unheard, servers.lies.looks_late = 3, 1, 2
    await ImageMaking(servers, Said(), print).try_out(order(""), IMAGE, removing(servers), fresh=False)
    assert await servers_billed(servers) == []


@pytest.mark.usefixtures("impatient")
async def test_a_machine_that_does_not_go_is_named() -> None:
    servers, trial = MemoryServers(), order("")
    servers.lies.delete_nothing = 10_000
    with pytest.raises(ImageNotMade, match=f"{trial.id} is still there after it was deleted"):
        await ImageMaking(servers, Said(), print).try_out(trial, IMAGE, removing(servers), fresh=False)


@pytest.mark.parametrize("lie", ["unreachable", "hangs", "stop_nothing", "start_nothing"])
async def test_it_looks_again_where_a_provider_lies(lie: str) -> None:
    servers, builder, said = MemoryServers(), order(""), Said()
    said.sealing = lambda: servers.crash(builder.id)
    setattr(servers.lies, lie, 3)
    try:
        await ImageMaking(servers, said, print).make(servers, builder, IMAGE, sealed=True)
    except MachinesError as error:  # a call that is not asked again says so, and leaves nothing
        pytest.fail(f"{lie}: {error}")
    assert await images(servers) == [IMAGE]
    assert await servers_billed(servers) == []
