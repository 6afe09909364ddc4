"""What every driver of whole servers promises (ports/machines Servers): one suite, each driver, the twin included.

A driver joins by a class that keeps ServersUnderTest, and a line in DRIVERS.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest

from tests.drivers.hetzner_project import Project, project
from tests.running import until
from tinyfat.domain.machines import Address, Billed, BilledKind, MachineOrder, MachineState, ServerOrder
from tinyfat.drivers.machines.hosted import MEMORY_BYTES, HostedServers
from tinyfat.drivers.machines.memory_servers import MemoryServers
from tinyfat.machine_hosts.images import ImageFolder
from tinyfat.machine_hosts.machine_host import MachineHost
from tinyfat.machine_hosts.nspawn import NspawnHost
from tinyfat.machine_hosts.qemu import QemuHost
from tinyfat.ports.machines import MachineRefused, Servers
from tinyfat.recipes.cloud_init import user_data
from tinyfat.standins.hetzner.memory_host import MemoryHost

STOPPED_OR_GONE = (MachineState.STOPPED, MachineState.GONE)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHvSrvBpBO5q4FqS0h3cHzP9jDN1fqkpnQ4pU0f0cVwK"


class ServersUnderTest(Protocol):
    """A driver, and the truth behind its words."""

    seconds: float  # within which a promise comes true

    @property
    def servers(self) -> Servers: ...

    def another(self) -> Servers:
        """The driver of another process, or of this one after a crash: the same world, and no memory of it."""

    async def alive(self, machine_id: str) -> bool:
        """Whether anything of it really runs."""

    async def close(self) -> None: ...


class MemoryUnderTest:
    seconds = 5.0

    def __init__(self) -> None:
        self.servers = MemoryServers()

    def another(self) -> Servers:
        return self.servers

    async def alive(self, machine_id: str) -> bool:
        return machine_id in self.servers.running()

    async def close(self) -> None: ...


class HostedUnderTest:
    """A machine host's machines. `host` is asked anew each time: another process knows only what is on disk."""

    def __init__(
        self,
        host: Callable[[], MachineHost],
        plain_image: str,
        seconds: float,
        alive: Callable[[str], bool],
        *,
        forwards: bool = False,
    ) -> None:
        """`forwards`: this host itself takes connections for its machines."""
        self.forwards = forwards
        self.seconds, self._host, self._plain_image, self._alive = seconds, host, plain_image, alive
        self.servers = self.another()

    def another(self) -> HostedServers:
        return HostedServers(self._host(), "ours", user_data, time.monotonic, plain_image=self._plain_image)

    async def alive(self, machine_id: str) -> bool:
        return self._alive(machine_id)

    async def close(self) -> None:
        host = self._host()
        for machine in await host.machines():
            await host.destroy(machine.name)
        await host.close()


async def memory(_: Path) -> ServersUnderTest:
    return MemoryUnderTest()


async def hosted(_: Path) -> ServersUnderTest:
    host = MemoryHost(time.time)
    return HostedUnderTest(
        lambda: host, "debian-12", 5.0,
        lambda name: name in host.machines_by_name and host.machines_by_name[name].state is MachineState.RUNNING,
    )  # fmt: skip


class HetznerUnderTest:
    """The driver for Hetzner against our stand-in, whose machines are in memory."""

    seconds = 30.0

    def __init__(self, here: Project, stack: AsyncExitStack) -> None:
        self._here, self._stack = here, stack
        self.servers = here.listed()

    def another(self) -> Servers:
        return self._here.listed()

    async def alive(self, machine_id: str) -> bool:
        """By what the stand-in's host has, whatever its API says."""
        numbers = {each.name: each.id for each in self._here.cloud.servers.values()}
        name = self._here.cloud.machine_name(numbers.get(f"tinyfat-{machine_id}", 0))
        machines = await self._here.cloud.machines.machines()
        return any(each.name == name and each.state is MachineState.RUNNING for each in machines)

    async def close(self) -> None:
        await self._stack.aclose()


async def hetzner(_: Path) -> ServersUnderTest:
    stack = AsyncExitStack()
    return HetznerUnderTest(await stack.enter_async_context(project(action_seconds=0.02)), stack)


async def nspawn(folder: Path) -> ServersUnderTest:
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
        pytest.skip("containers of systemd need root and systemd-nspawn")
    images = folder / "images"
    from tests.machine_hosts.base_image import base_image  # only here: it may take a minute

    plain = await base_image(ImageFolder(images))

    def host() -> NspawnHost:
        return NspawnHost(folder / "host", images, lambda: datetime.now(UTC))

    def alive(name: str) -> bool:
        """By the command lines of all processes, whatever control groups say."""
        return any(f"/{name}/root" in line for line in _command_lines())

    return HostedUnderTest(host, plain, 30.0, alive)


async def local_vm(folder: Path) -> ServersUnderTest:
    return await _virtual(folder, cloned=False)


async def cloned_vm(folder: Path) -> ServersUnderTest:
    """Machines that were never booted: clones of one that was (machine_hosts/booted)."""
    return await _virtual(folder, cloned=True)


async def _virtual(folder: Path, cloned: bool) -> ServersUnderTest:
    if shutil.which("qemu-system-x86_64") is None or os.geteuid() != 0:
        pytest.skip("virtual machines need qemu-system-x86, their base image and the ports below 1024 need root")
    images = folder / "images"
    from tests.machine_hosts.base_image import base_disk  # only here: it may take minutes

    plain = await base_disk(ImageFolder(images), frozen=cloned)

    def host() -> QemuHost:
        return QemuHost(folder / "host", images, lambda: datetime.now(UTC))

    def alive(name: str) -> bool:
        return any(f"/{name}/disk.qcow2" in line for line in _command_lines())

    if cloned:
        await host().freeze(plain, MEMORY_BYTES)
    return HostedUnderTest(host, plain, 90.0, alive, forwards=True)


DRIVERS: dict[str, Callable[[Path], Awaitable[ServersUnderTest]]] = {
    "memory": memory,
    "hosted": hosted,
    "hetzner": hetzner,
    "nspawn": nspawn,
    "local_vm": local_vm,
    "cloned_vm": cloned_vm,
}
MARKED = {"nspawn": pytest.mark.nspawn, "local_vm": pytest.mark.vm, "cloned_vm": pytest.mark.vm}


@pytest.fixture(params=[pytest.param(name, marks=MARKED.get(name, ())) for name in DRIVERS])
async def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ServersUnderTest]:
    made = await DRIVERS[request.param](tmp_path)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(made.close)
        yield made


def taken(ipv4: str, port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex((ipv4, port)) == 0


def _command_lines() -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def order(address: str = "", image: str = "") -> MachineOrder:
    machine_id = str(uuid.uuid4())
    server = ServerOrder(
        hostname=f"ada-{machine_id[:8]}.agents.example.org",
        control_url="https://192.0.2.1:8443",
        control_ca="",
        enrolment_token="0" * 64,
        box_sha256="0" * 64,
        ssh_ca=KEY,
        address=address,
        image=image,
    )
    return MachineOrder(machine_id, "ada", "echo", "wss://192.0.2.1:8443/box/link", "", server)


async def becomes(made: ServersUnderTest, machine_id: str, state: MachineState) -> None:
    """At every look on its way: never called stopped or gone while it runs."""

    async def there() -> bool:
        said = (await made.servers.look(machine_id)).state
        if said in STOPPED_OR_GONE and state in STOPPED_OR_GONE:
            assert not await made.alive(machine_id), f"{said}, and it runs"
        return said is state

    await until(there, made.seconds, f"machine {machine_id} is {state}")


async def lives(made: ServersUnderTest, machine_id: str) -> None:
    """A process that was just started has no command line yet by which to know it."""

    async def there() -> bool:
        return await made.alive(machine_id)

    await until(there, made.seconds, f"machine {machine_id} really runs")


async def stopped(made: ServersUnderTest, machine_id: str) -> None:
    """Asked again and again, as flows do: a system that has hardly begun does not hear the power button."""

    async def there() -> bool:
        await made.servers.stop(machine_id)
        said = (await made.servers.look(machine_id)).state
        assert said is not MachineState.STOPPED or not await made.alive(machine_id), "it is called stopped, and runs"
        return said is MachineState.STOPPED

    await until(there, made.seconds, f"machine {machine_id} is stopped")


async def running(made: ServersUnderTest, address: str = "", image: str = "") -> MachineOrder:
    one = order(address, image)
    await made.servers.start(one)
    await becomes(made, one.id, MachineState.RUNNING)
    return one


async def known(made: ServersUnderTest, address_id: str) -> Address:
    async def there() -> bool:
        return (await made.servers.address(address_id)).ipv4 != ""

    await until(there, made.seconds, f"address {address_id} is known")
    return await made.servers.address(address_id)


async def attached(made: ServersUnderTest, address_id: str, machine_id: str) -> None:
    async def there() -> bool:
        return await made.servers.attach(address_id, machine_id)

    await until(there, made.seconds, f"machine {machine_id} has the address {address_id}")


async def released(made: ServersUnderTest, address_id: str) -> None:
    async def gone() -> bool:
        return await made.servers.release(address_id)

    await until(gone, made.seconds, f"address {address_id} is let go")


async def of_owner(made: ServersUnderTest, owner_id: str) -> list[Billed]:
    return [one for one in await made.servers.billed() if one.owner_id == owner_id]


async def test_what_was_never_ordered_is_gone(under_test: ServersUnderTest) -> None:
    servers, unknown = under_test.servers, str(uuid.uuid4())
    assert (await servers.look(unknown)).state is MachineState.GONE
    await servers.stop(unknown)
    await servers.delete(unknown)
    assert (await servers.look(unknown)).state is MachineState.GONE


async def test_its_life_from_start_to_gone_each_step_twice(under_test: ServersUnderTest) -> None:
    servers, one = under_test.servers, order()
    await servers.start(one)
    await servers.start(one)
    await becomes(under_test, one.id, MachineState.RUNNING)
    await lives(under_test, one.id)
    assert (await servers.look(one.id)).ipv4
    await servers.stop(one.id)
    await stopped(under_test, one.id)
    await servers.start(one)
    await becomes(under_test, one.id, MachineState.RUNNING)
    await servers.delete(one.id)
    await servers.delete(one.id)
    await becomes(under_test, one.id, MachineState.GONE)
    assert [b for b in await of_owner(under_test, one.id) if b.kind is BilledKind.SERVER] == []


async def test_an_order_that_names_no_server_is_refused(under_test: ServersUnderTest) -> None:
    one = replace(order(), server=None)
    with pytest.raises(MachineRefused):
        await under_test.servers.start(one)
    assert (await under_test.servers.look(one.id)).state is MachineState.GONE


async def test_two_machines_do_not_touch_each_other(under_test: ServersUnderTest) -> None:
    one, two = await running(under_test), await running(under_test)
    servers = under_test.servers
    assert (await servers.look(one.id)).ipv4 != (await servers.look(two.id)).ipv4
    await servers.delete(one.id)
    await becomes(under_test, one.id, MachineState.GONE)
    assert (await servers.look(two.id)).state is MachineState.RUNNING
    await lives(under_test, two.id)


async def test_after_a_crash_everything_is_found_again_and_nothing_is_made_twice(under_test: ServersUnderTest) -> None:
    address = await known(under_test, "agent-1")
    one = await running(under_test, "agent-1")
    after = under_test.another()

    async def found() -> bool:
        return (await after.look(one.id)).state is MachineState.RUNNING

    await until(found, under_test.seconds, "another driver finds it")
    assert (await after.address("agent-1")).ipv4 == address.ipv4
    await after.start(one)
    assert len([b for b in await of_owner(under_test, one.id) if b.kind is BilledKind.SERVER]) == 1
    await after.delete(one.id)
    await becomes(under_test, one.id, MachineState.GONE)


async def test_an_address_stays_the_same_until_it_is_let_go(under_test: ServersUnderTest) -> None:
    first = await known(under_test, "agent-1")
    assert await known(under_test, "agent-1") == first
    assert (await known(under_test, "agent-2")).ipv4 != first.ipv4
    assert first.machine_id == ""
    await released(under_test, "agent-1")
    await released(under_test, "agent-1")
    assert await of_owner(under_test, "agent-1") == []


async def test_a_machine_has_the_address_it_was_ordered_with_and_leaves_it_behind(under_test: ServersUnderTest) -> None:
    servers, address = under_test.servers, await known(under_test, "agent-1")
    one = await running(under_test, "agent-1")
    assert (await servers.look(one.id)).ipv4 == address.ipv4
    assert (await known(under_test, "agent-1")).machine_id == one.id
    assert not await servers.release("agent-1")
    assert (await known(under_test, "agent-1")).ipv4 == address.ipv4  # what a machine uses stays
    await servers.delete(one.id)
    await becomes(under_test, one.id, MachineState.GONE)

    async def free() -> bool:
        return (await servers.address("agent-1")) == address

    await until(free, under_test.seconds, "the address is nobody's again, and the same")


async def test_an_order_for_an_address_that_was_never_made_does_not_make_a_machine(
    under_test: ServersUnderTest,
) -> None:
    one = order("agent-1")
    with pytest.raises(MachineRefused):
        await under_test.servers.start(one)
    assert (await under_test.servers.look(one.id)).state is MachineState.GONE


async def test_an_address_moves_from_one_machine_to_the_next(under_test: ServersUnderTest) -> None:
    servers, address = under_test.servers, await known(under_test, "agent-1")
    old, new = await running(under_test, "agent-1"), await running(under_test)
    await attached(under_test, "agent-1", new.id)
    await attached(under_test, "agent-1", new.id)
    seen = await servers.look(new.id)
    assert (seen.state, seen.ipv4) == (MachineState.RUNNING, address.ipv4)
    assert (await known(under_test, "agent-1")).machine_id == new.id
    assert (await servers.look(old.id)).ipv4 != address.ipv4
    await servers.delete(old.id)
    await becomes(under_test, old.id, MachineState.GONE)
    assert (await servers.look(new.id)).ipv4 == address.ipv4


async def test_an_address_is_attached_only_where_both_are(under_test: ServersUnderTest) -> None:
    servers = under_test.servers
    await known(under_test, "agent-1")
    with pytest.raises(MachineRefused):
        await servers.attach("agent-1", str(uuid.uuid4()))
    one = await running(under_test)
    with pytest.raises(MachineRefused):
        await servers.attach("agent-2", one.id)


async def test_what_is_open_follows_what_was_asked_and_leaves_the_machine_running(
    under_test: ServersUnderTest,
) -> None:
    servers, one = under_test.servers, await running(under_test)
    for published in (True, True, False):

        async def so(published: bool = published) -> bool:
            return await servers.opens(one.id, ("192.0.2.0/24",), published)

        await until(so, under_test.seconds, f"it is open so: {published}")
        assert await under_test.another().opens(one.id, ("192.0.2.0/24",), published)
        seen = await servers.look(one.id)
        assert seen.state is MachineState.RUNNING
        await lives(under_test, one.id)
        if isinstance(under_test, HostedUnderTest) and under_test.forwards:
            assert [taken(seen.ipv4, port) for port in (22, 80, 443)] == [True, False, published]
    with pytest.raises(MachineRefused):
        await servers.opens(str(uuid.uuid4()), (), True)


async def test_the_bill_lists_what_is_ours_by_owner(under_test: ServersUnderTest) -> None:
    servers = under_test.servers
    await known(under_test, "agent-1")
    one = await running(under_test, "agent-1")
    (server,) = [b for b in await of_owner(under_test, one.id) if b.kind is BilledKind.SERVER]
    addresses = [b for b in await of_owner(under_test, "agent-1") if b.kind is BilledKind.ADDRESS]
    assert server.ours and addresses and all(b.ours for b in addresses)
    assert server.created_at.tzinfo is not None and server.created_at.year >= 2026
    assert await servers.monthly_nanodollars(one.id) >= 0
    await servers.remove(server)
    await becomes(under_test, one.id, MachineState.GONE)
    for _ in range(2):  # it may take a while until an address whose machine has just gone can go
        for billed in await of_owner(under_test, "agent-1"):
            await servers.remove(billed)
    await released(under_test, "agent-1")
    assert await of_owner(under_test, "agent-1") == []


async def test_what_is_not_ours_is_not_removed(under_test: ServersUnderTest) -> None:
    one = await running(under_test)
    (server,) = [b for b in await of_owner(under_test, one.id) if b.kind is BilledKind.SERVER]
    with pytest.raises(MachineRefused):
        await under_test.servers.remove(replace(server, ours=False))
    assert (await under_test.servers.look(one.id)).state is MachineState.RUNNING


async def test_an_image_of_a_stopped_machine_makes_others(under_test: ServersUnderTest) -> None:
    servers, one, name = under_test.servers, await running(under_test), f"openclaw-1-{uuid.uuid4().hex[:8]}"
    await stopped(under_test, one.id)

    async def made() -> bool:
        return await servers.snapshot(one.id, name)

    await until(made, under_test.seconds, "the image can be used")
    assert await servers.snapshot(one.id, name)
    assert [image.name for image in await servers.images()].count(name) == 1
    assert [image.bytes > 0 for image in await servers.images() if image.name == name] == [True]
    two = await running(under_test, image=name)
    for machine in (one, two):
        await servers.delete(machine.id)
        await becomes(under_test, machine.id, MachineState.GONE)

    async def gone() -> bool:
        return await servers.remove_image(name)

    await until(gone, under_test.seconds, "the image is gone")
    assert name not in [image.name for image in await servers.images()]
