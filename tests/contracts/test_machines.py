"""What every driver of machines promises (ports/machines): one suite, each driver, the memory twin included."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from tests.machine_hosts.docker_daemon import docker_daemon
from tests.running import free_port, until
from tinyfat.box.folder import BoxFolder
from tinyfat.box.process_table import boot, look
from tinyfat.cli.imaging import served_reception
from tinyfat.domain.link import ModelAccess, RuntimeSpec
from tinyfat.domain.machines import MachineOrder, MachineState
from tinyfat.drivers.machines.docker import MACHINE_LABEL, DockerMachines
from tinyfat.drivers.machines.docker_engine import DockerEngine
from tinyfat.drivers.machines.memory import Lies, MemoryMachines
from tinyfat.drivers.machines.process import ProcessMachines
from tinyfat.image_builds import ImageBuilds
from tinyfat.ports.machines import MachineRefused, Machines, MachinesUnreachable
from tinyfat.settings import Settings

ENDED = (MachineState.STOPPED, MachineState.GONE)
SECONDS = 20.0


class Driver(Protocol):
    """A driver under test, and the truth behind its words."""

    @property
    def machines(self) -> Machines: ...

    def alive(self, machine_id: str) -> int:
        """How many of this machine really run now."""


class MemoryDriver:
    def __init__(self) -> None:
        self.machines = MemoryMachines()

    def alive(self, machine_id: str) -> int:
        return self.machines.running().count(machine_id)


class ProcessDriver:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machines = ProcessMachines(folder / "machines", folder / "shared", time.monotonic)

    def alive(self, machine_id: str) -> int:
        return len(self.boxes(machine_id))

    def boxes(self, machine_id: str) -> list[psutil.Process]:
        wanted = ["tinyfat.box", "--folder", str(self.folder / "machines" / machine_id)]
        return [p for p in psutil.process_iter() if _argv(p)[-3:] == wanted]

    def servers(self, machine_id: str) -> list[psutil.Process]:
        """The echo runtimes of this machine."""
        state = str(self.folder / "machines" / machine_id / "state")
        return [
            p for p in psutil.process_iter() if "tinyfat.box.runtimes.echo_server" in _argv(p) and state in _argv(p)
        ]

    def give_work(self, machine_id: str) -> None:
        """What the control plane would have said: so the box starts a runtime without one."""
        folder = self.folder / "machines" / machine_id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        model = ModelAccess("openai-completions", "http://127.0.0.1:9/v1", "none", "main")
        BoxFolder(folder).save_spec(RuntimeSpec("echo", "ada", model, 1024**3))


class DockerDriver:
    """An engine of this test's own, with an image of the box that was baked into it."""

    def __init__(self, url: str, image: str) -> None:
        self._url = url
        self.engine = DockerEngine(url)
        self.machines = DockerMachines(self.engine, image, time.monotonic, network="host", memory_bytes=512 * 1024**2)

    def alive(self, machine_id: str) -> int:
        """By the kernel: boxes in the control group that bears the container's id."""
        argv = ["docker", "-H", self._url, "inspect", "-f", "{{.Id}}", f"tinyfat-{machine_id}"]
        found = subprocess.run(argv, capture_output=True, text=True, check=False)
        if found.returncode != 0:
            return 0
        boxes = [p for p in psutil.process_iter() if _argv(p)[1:3] == ["-m", "tinyfat.box"]]
        return sum(found.stdout.strip() in Path(f"/proc/{p.pid}/cgroup").read_text() for p in boxes)


@asynccontextmanager
async def docker(folder: Path) -> AsyncIterator[DockerDriver]:
    async with docker_daemon(folder) as url:
        image = (await ImageBuilds(Settings(), served_reception, print).in_engine(url, "echo")).name
        made = DockerDriver(url, image)
        try:
            yield made
        finally:
            for name in await made.engine.labelled(MACHINE_LABEL):
                await made.engine.remove(name)
            await made.engine.close()


def _argv(process: psutil.Process) -> list[str]:
    try:
        return [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except psutil.Error:
        return []


def order(port: int = 9) -> MachineOrder:
    return MachineOrder(str(uuid.uuid4()), "ada", "echo", f"ws://127.0.0.1:{port}/box/link", "token")


@pytest.fixture(params=["memory", "process", pytest.param("docker", marks=pytest.mark.docker)])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Driver]:
    if request.param == "docker":
        async with docker(tmp_path) as container_driver:
            yield container_driver
        return
    made: MemoryDriver | ProcessDriver = MemoryDriver() if request.param == "memory" else ProcessDriver(tmp_path)
    yield made
    if isinstance(made, ProcessDriver):
        await end_all(made)


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[ProcessDriver]:
    made = ProcessDriver(tmp_path)
    yield made
    await end_all(made)


async def end_all(made: ProcessDriver) -> None:
    for folder in (made.folder / "machines").glob("*"):
        await made.machines.delete(folder.name)
        for process in (*made.boxes(folder.name), *made.servers(folder.name)):
            process.kill()


async def becomes(machines: Machines, machine_id: str, *states: MachineState) -> None:
    async def there() -> bool:
        return (await machines.look(machine_id)).state in states

    await until(there, SECONDS, f"machine {machine_id} is {states}")


async def one_runs(driver: Driver, machine_id: str) -> None:
    """A process that was just started has no command line yet by which to know it."""

    async def one() -> bool:
        return driver.alive(machine_id) == 1

    await until(one, SECONDS, f"one machine {machine_id} runs, no more and no less")


async def test_what_was_never_ordered_is_gone(driver: Driver) -> None:
    unknown = str(uuid.uuid4())
    assert (await driver.machines.look(unknown)).state is MachineState.GONE
    await driver.machines.stop(unknown)
    await driver.machines.delete(unknown)
    assert (await driver.machines.look(unknown)).state is MachineState.GONE


async def test_its_life_from_start_to_gone_each_step_twice(driver: Driver) -> None:
    machines, one = driver.machines, order()
    await machines.start(one)
    await machines.start(one)
    await becomes(machines, one.id, MachineState.RUNNING)
    await one_runs(driver, one.id)
    await machines.stop(one.id)
    await machines.stop(one.id)
    await becomes(machines, one.id, MachineState.STOPPED)
    assert driver.alive(one.id) == 0
    await machines.start(one)
    await becomes(machines, one.id, MachineState.RUNNING)
    await one_runs(driver, one.id)
    await machines.delete(one.id)
    await machines.delete(one.id)
    await becomes(machines, one.id, MachineState.GONE)
    assert driver.alive(one.id) == 0


async def test_deleted_it_can_be_ordered_again(driver: Driver) -> None:
    machines, one = driver.machines, order()
    for _ in range(2):
        await machines.start(one)
        await becomes(machines, one.id, MachineState.RUNNING)
        await machines.delete(one.id)
        await becomes(machines, one.id, MachineState.GONE)


async def test_another_order_for_the_same_machine_replaces_it(driver: Driver) -> None:
    machines, one = driver.machines, order()
    await machines.start(one)
    await becomes(machines, one.id, MachineState.RUNNING)
    await machines.start(replace(one, link_token="another"))
    await becomes(machines, one.id, MachineState.RUNNING)
    await one_runs(driver, one.id)


async def test_two_machines_do_not_touch_each_other(driver: Driver) -> None:
    machines, one, two = driver.machines, order(), order()
    await machines.start(one)
    await machines.start(two)
    await becomes(machines, two.id, MachineState.RUNNING)
    await machines.delete(one.id)
    await becomes(machines, one.id, MachineState.GONE)
    assert (await machines.look(two.id)).state is MachineState.RUNNING
    await one_runs(driver, two.id)


async def test_it_is_never_called_ended_while_it_runs(driver: Driver) -> None:
    """At every look on its way down: what the driver says against what is there."""
    machines, one = driver.machines, order()
    if isinstance(driver, ProcessDriver):
        driver.give_work(one.id)
    await machines.start(one)
    await becomes(machines, one.id, MachineState.RUNNING)
    await machines.stop(one.id)

    async def ended() -> bool:
        said = (await machines.look(one.id)).state
        if said in ENDED:
            assert driver.alive(one.id) == 0, f"{said}, and it runs"
        return said in ENDED

    await until(ended, SECONDS, "it stopped")


# What only processes do.


LEAVES_A_COMMAND = """
import subprocess, sys
command = [sys.executable, "-c", "input()"]
print(subprocess.Popen(command, stdin=int(sys.argv[1]), stdout=subprocess.DEVNULL).pid, flush=True)
sys.stdin.read()
"""


async def test_a_command_that_outlived_its_runtime_keeps_the_machine_from_being_stopped(
    processes: ProcessDriver,
) -> None:
    one = order()
    folder = processes.folder / "machines" / one.id
    folder.mkdir(parents=True)
    held_open, hold = os.pipe()
    runtime = subprocess.Popen(
        [sys.executable, "-c", LEAVES_A_COMMAND, str(held_open)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[held_open], start_new_session=True,
    )  # fmt: skip
    assert runtime.stdin is not None and runtime.stdout is not None
    try:
        seen = look(runtime.pid)
        assert seen is not None
        command = int(runtime.stdout.readline())
        (folder / "runtime.pid").write_text(json.dumps({"pid": seen.pid, "started": seen.started, "boot": boot()}))
        assert (await processes.machines.look(one.id)).state is MachineState.UNKNOWN
        runtime.stdin.close()
        runtime.wait(SECONDS)  # the runtime ends, its command goes on
        after = await processes.machines.look(one.id)
        assert after.state is MachineState.UNKNOWN and str(command) in after.detail
        await processes.machines.delete(one.id)
        assert (await processes.machines.look(one.id)).state is MachineState.GONE
        assert look(command) is None
    finally:
        runtime.kill()
        runtime.wait(SECONDS)
        runtime.stdout.close()
        os.close(hold)
        os.close(held_open)


async def test_another_control_plane_finds_the_machine_and_starts_no_second_one(processes: ProcessDriver) -> None:
    one = order(free_port())
    await processes.machines.start(one)

    async def locked() -> bool:
        pid = processes.folder / "machines" / one.id / "box.pid"
        return pid.is_file() and pid.read_text() != ""

    await until(locked, SECONDS, "the box took its folder")
    after_a_crash = ProcessMachines(processes.folder / "machines", processes.folder / "shared", time.monotonic)
    assert (await after_a_crash.look(one.id)).state is MachineState.RUNNING
    await after_a_crash.start(one)
    await one_runs(processes, one.id)
    await after_a_crash.stop(one.id)
    await becomes(processes.machines, one.id, MachineState.STOPPED)


async def test_a_box_that_does_not_hear_is_killed_after_a_while(tmp_path: Path) -> None:
    clock = [0.0]
    made = ProcessDriver(tmp_path)
    made.machines = ProcessMachines(tmp_path / "machines", tmp_path / "shared", lambda: clock[0])
    one = order()
    await made.machines.start(one)
    try:
        await one_runs(made, one.id)
        (box,) = made.boxes(one.id)
        box.send_signal(signal.SIGSTOP)
        await made.machines.stop(one.id)
        assert (await made.machines.look(one.id)).state is MachineState.RUNNING
        clock[0] = 31.0
        await made.machines.stop(one.id)
        await becomes(made.machines, one.id, MachineState.STOPPED)
    finally:
        await end_all(made)


async def test_a_pid_that_is_another_processes_by_now_is_not_killed(processes: ProcessDriver) -> None:
    one = order()
    folder = processes.folder / "machines" / one.id
    folder.mkdir(parents=True)
    (folder / "box.pid").write_text(f"{os.getpid()}\n")
    (folder / "runtime.pid").write_text(f'{{"pid": {os.getpid()}, "started": 1, "boot": "another"}}')
    assert (await processes.machines.look(one.id)).state is MachineState.STOPPED
    await processes.machines.delete(one.id)  # were it not so, it would end this test
    assert (await processes.machines.look(one.id)).state is MachineState.GONE


async def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "machines").write_text("a file, where the folder should be")
    machines = ProcessMachines(tmp_path / "machines", tmp_path / "shared", time.monotonic)
    with pytest.raises(MachineRefused, match="ada cannot be started"):
        await machines.start(order())


# What only the twin does: a provider's lies, told on demand.


async def test_a_stop_that_was_acknowledged_and_not_done_is_seen() -> None:
    machines, one = MemoryMachines(Lies(stop_nothing=1)), order()
    await machines.start(one)
    await machines.stop(one.id)
    assert (await machines.look(one.id)).state is MachineState.RUNNING
    await machines.stop(one.id)
    assert (await machines.look(one.id)).state is MachineState.STOPPED


async def test_what_is_not_listed_yet_is_unknown_and_never_gone() -> None:
    machines, one = MemoryMachines(Lies(looks_late=2)), order()
    await machines.start(one)
    seen = [(await machines.look(one.id)).state for _ in range(3)]
    assert seen == [MachineState.UNKNOWN, MachineState.UNKNOWN, MachineState.RUNNING]


async def test_a_provider_that_does_not_answer_says_nothing_about_the_machine() -> None:
    machines = MemoryMachines(Lies(unreachable=1))
    with pytest.raises(MachinesUnreachable):
        await machines.look("any")
