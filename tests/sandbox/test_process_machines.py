"""Machines that are processes, whose box is hostile: nothing outlives it, and it steers nobody's hand outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import psutil
import pytest

from tests.running import until
from tinyfat.box.process_table import boot, look
from tinyfat.box.runtime import InstallFailed, Progress
from tinyfat.box.runtimes import install
from tinyfat.domain.machines import MachineOrder, MachineState
from tinyfat.drivers.machines import process_box
from tinyfat.drivers.machines.process import ProcessMachines
from tinyfat.sandbox import means
from tinyfat.sandbox.means import NONE, Means

IN_ITS_PLACE = Path(__file__).parent / "in_its_place.py"
SECONDS = 30.0
HERE = means.here()
ALONE = Means(HERE.landlock, namespaces=False, seccomp=HERE.seccomp)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere than on Linux there is no sandbox")
EACH = [
    pytest.param(HERE, id="room", marks=pytest.mark.skipif(not HERE.namespaces, reason="no user namespaces here")),
    pytest.param(ALONE, id="landlock", marks=pytest.mark.skipif(not ALONE.any, reason="no Landlock here")),
    pytest.param(NONE, id="none"),
]
# A child of nobody in a session of its own, away from the folder, that does not hear SIGTERM; its time tells it apart.
LEAVES_ONE = """
import os, signal, sys, time
if not os.fork():
    os.setsid()
    if os.fork(): os._exit(0)
    os.chdir("/")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.execvp("sleep", ["sleep", sys.argv[2]])
os.wait()
open(sys.argv[1], "w").close()
time.sleep(600)
"""


class House:
    """One machine's folder, and whatever is put in its box's place."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder, self.record = home / "machines/m1", home / "boxes/m1.json"
        self.machines = ProcessMachines(home / "machines", home / "shared", time.monotonic)
        self.seconds = str(100_000 + os.getpid())

    def written(self, of: Means) -> None:
        for made in (self.folder, self.record.parent):
            made.mkdir(parents=True, exist_ok=True)
        body = {"box": {"runtime": "openclaw"}, "folder": str(self.folder), "shared": str(self.home / "shared")}
        self.record.write_text(json.dumps({**body, "means": asdict(of), "no_connect": [], "no_bind": [], "number": 0}))

    @contextmanager
    def runs(self, of: Means, program: str, *arguments: str) -> Iterator[psutil.Process]:
        """The parent of the box in which this program of Python runs."""
        self.written(of)
        argv = [sys.executable, str(IN_ITS_PLACE), str(self.record), sys.executable, "-c", program, *arguments]
        with subprocess.Popen(argv, start_new_session=True) as parent:
            try:
                yield psutil.Process(parent.pid)
            finally:
                for one in [*self.left(), parent]:
                    with suppress(psutil.Error):
                        one.kill()

    def left(self) -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", self.seconds]]

    async def has_left_one(self) -> None:
        async def so() -> bool:
            return (self.folder / "left").exists() and len(self.left()) == 1

        await until(so, SECONDS, "the box has left a process behind")

    async def nothing_is_left(self) -> None:
        async def so() -> bool:
            return not self.left()

        await until(so, SECONDS, "nothing is left")

    async def is_stopped(self) -> None:
        async def so() -> bool:
            return (await self.machines.look("m1")).state is MachineState.STOPPED

        await until(so, SECONDS, "the machine is stopped")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "home")


@pytest.mark.parametrize("of", EACH)
async def test_what_left_its_session_and_its_folder_ends_with_a_killed_box(house: House, of: Means) -> None:
    with house.runs(of, LEAVES_ONE, str(house.folder / "left"), house.seconds) as parent:
        await house.has_left_one()
        (box,) = (p for p in parent.children() if "sleep" not in p.name())
        box.kill()
        await house.nothing_is_left()
        await house.is_stopped()


@pytest.mark.parametrize("of", EACH)
async def test_it_ends_with_the_machine(house: House, of: Means) -> None:
    with house.runs(of, LEAVES_ONE, str(house.folder / "left"), house.seconds):
        await house.has_left_one()
        assert (await house.machines.look("m1")).state is MachineState.RUNNING
        await house.machines.delete("m1")
        assert (await house.machines.look("m1")).state is MachineState.GONE
        await house.nothing_is_left()
        assert list(house.record.parent.iterdir()) == []


@pytest.mark.parametrize("of", EACH[:1])
async def test_in_a_room_it_ends_with_the_boxs_killed_parent_too(house: House, of: Means) -> None:
    with house.runs(of, LEAVES_ONE, str(house.folder / "left"), house.seconds) as parent:
        await house.has_left_one()
        parent.kill()
        await house.nothing_is_left()


FORGES = """
import json, os, sys, time
mark = json.loads(sys.argv[2])
for name in ("runtime.pid", "box.pid"):
    with open(name, "w") as file: file.write(json.dumps(mark) if name == "runtime.pid" else str(mark["pid"]))
open(sys.argv[1], "w").close()
time.sleep(600)
"""


@pytest.mark.parametrize("of", EACH[:2])
async def test_a_box_cannot_name_anothers_process_as_its_own(house: House, of: Means) -> None:
    """Were it believed, a stop or a delete would end the operator's own programs."""
    victim = subprocess.Popen([sys.executable, "-c", "input()", str(house.folder)], stdin=subprocess.PIPE)
    try:
        seen = look(victim.pid)
        assert seen is not None
        mark = json.dumps({"pid": victim.pid, "started": seen.started, "boot": boot()})
        with house.runs(of, FORGES, str(house.folder / "forged"), mark):

            async def forged() -> bool:
                return (house.folder / "forged").exists()

            await until(forged, SECONDS, "the box has forged its marks")
            await house.machines.stop("m1")
            await house.machines.delete("m1")
            assert (await house.machines.look("m1")).state is MachineState.GONE
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.communicate()


async def test_nothing_of_ours_is_written_through_a_boxs_link(house: House, tmp_path: Path) -> None:
    theirs = tmp_path / "authorized_keys"
    theirs.write_text("mine")
    house.folder.mkdir(parents=True)
    for name in ("box.json", "box.new", "box.json.new", "box.err", "home", "tmp"):
        (house.folder / name).symlink_to(theirs)
    os.mkfifo(house.folder / "runtime.pid")  # who opens it waits for ever
    machines = ProcessMachines(house.home / "machines", house.home / "shared", time.monotonic, lambda: NONE)
    order = MachineOrder("m1", "ada", "echo", "ws://127.0.0.1:9/box/link", "token")
    try:
        await machines.start(order)
        assert (await machines.look("m1")).state is MachineState.RUNNING
        assert json.loads((house.folder / "box.json").read_text())["link_token"] == "token"
    finally:
        await machines.delete("m1")
    assert theirs.read_text() == "mine"


async def test_a_folder_nested_deeper_than_python_goes_is_removed(house: House) -> None:
    """And one that is closed to whoever is not root."""
    house.folder.mkdir(parents=True)
    closed = house.folder / "closed"
    (closed / "inside").mkdir(parents=True)
    closed.chmod(0)
    at = os.open(house.folder, os.O_RDONLY)
    for _ in range(sys.getrecursionlimit() + 100):
        os.mkdir("deeper", dir_fd=at)
        at, before = os.open("deeper", os.O_RDONLY, dir_fd=at), at
        os.close(before)
    os.close(at)
    await house.machines.delete("m1")
    assert (await house.machines.look("m1")).state is MachineState.GONE


async def test_a_box_that_an_earlier_version_began_is_begun_anew(house: House) -> None:
    """It runs without a parent, and without a sandbox."""
    house.folder.mkdir(parents=True)
    argv = [sys.executable, "-c", "import time; time.sleep(600)", "--folder", str(house.folder)]
    with subprocess.Popen(argv, start_new_session=True) as old:
        try:
            (house.folder / "box.pid").write_text(f"{old.pid}\n")

            async def seen() -> bool:  # a program that has just begun has no arguments to be known by, for a moment
                return (await house.machines.look("m1")).state is MachineState.RUNNING

            await until(seen, SECONDS, "the old box is seen")
            await house.machines.start(MachineOrder("m1", "ada", "echo", "ws://127.0.0.1:9/box/link", "token"))
            assert old.wait(SECONDS) == -signal.SIGTERM
            assert (await house.machines.look("m1")).state is MachineState.RUNNING
        finally:
            old.kill()
            await house.machines.delete("m1")


async def test_each_machine_has_a_number_of_its_own_while_it_lives(house: House) -> None:
    names = ("m1", "m2", "m3")

    def numbers() -> list[int]:
        return [json.loads((house.record.parent / f"{name}.json").read_text())["number"] for name in names]

    try:
        for name in names:
            await house.machines.start(MachineOrder(name, "ada", "echo", "ws://127.0.0.1:9/box/link", "token"))
        assert numbers() == [0, 1, 2]
        await house.machines.delete("m2")
        after_a_crash = ProcessMachines(house.home / "machines", house.home / "shared", time.monotonic)
        await after_a_crash.start(MachineOrder("m4", "ada", "echo", "ws://127.0.0.1:9/box/link", "token"))
        names = ("m1", "m4", "m3")
        try:
            assert numbers() == [0, 1, 2]
        finally:
            await after_a_crash.delete("m4")
    finally:
        for name in ("m1", "m2", "m3"):
            await house.machines.delete(name)


async def test_the_records_are_ours_alone(house: House) -> None:
    order = MachineOrder("m1", "ada", "echo", "ws://127.0.0.1:9/box/link", "token")
    try:
        await house.machines.start(order)
        assert house.record.parent.stat().st_mode & 0o077 == 0 and house.record.stat().st_mode & 0o077 == 0
    finally:
        await house.machines.delete("m1")


async def test_other_ports_begin_the_box_anew(house: House) -> None:
    """It was started with what was closed then."""
    order = MachineOrder("m1", "ada", "echo", "ws://127.0.0.1:9/box/link", "token")
    pid_file = house.record.with_suffix(".pid")

    first = ""

    async def another() -> bool:
        return pid_file.exists() and pid_file.read_text() != first

    try:
        await house.machines.start(order)
        await until(another, SECONDS, "the box's parent has said who it is")
        first = pid_file.read_text()
        await house.machines.start(order)
        assert pid_file.read_text() == first
        house.machines.ports = process_box.Ports(frozenset({2525}), frozenset({2525}))
        await house.machines.start(order)
        await until(another, SECONDS, "there is another box")
    finally:
        await house.machines.delete("m1")


# The wire by which a box has its runtime installed.


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    serving = asyncio.create_task(process_box._install_when_asked("openclaw", tmp_path / "shared", ours))
    environment = {install.ASK_VARIABLE: str(theirs.fileno())}
    with mock.patch.dict(os.environ, environment), ours, theirs:
        yield theirs
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


class Installing:
    """In the place of npm."""

    def __init__(self, *failures: str) -> None:
        self.failures = list(failures)
        self.asked: list[str] = []

    async def __call__(self, wanted: install.Package, shared: Path, progress: Progress) -> Path:
        self.asked.append(wanted.name)
        progress(f"{wanted.name}: half of it")
        if self.failures:
            raise InstallFailed(self.failures.pop(0))
        return wanted.installed_in(shared)


async def test_a_box_has_its_runtime_installed_by_its_parent(wire: socket.socket, tmp_path: Path) -> None:
    asks = install.install
    said: list[str] = []
    with mock.patch.object(install, "install", Installing()):
        assert await asks(install.package("openclaw"), tmp_path / "none", said.append)
    assert said[0] == "openclaw: half of it"


async def test_why_it_failed_is_said_to_the_box(wire: socket.socket, tmp_path: Path) -> None:
    asks = install.install
    with (
        mock.patch.object(install, "install", Installing("no room", "no network")),
        mock.patch.object(process_box, "INSTALL_PAUSE_SECONDS", 0.0),
    ):
        for words in ("no room", "no network"):
            with pytest.raises(InstallFailed, match=words):
                await asks(install.package("openclaw"), tmp_path / "none", lambda words: None)


@pytest.mark.parametrize(
    "asked",
    [
        b"\xff", b"[" * 60_000, b"[]", b"null", b'{"number": 1}', b'{"number": "x", "install": "openclaw"}',
        b'{"number": 1, "install": "pi"}', b'{"number": 1, "install": "../../etc"}', b'{"number": 1, "install": []}',
        b'{"number": 1e999, "install": "openclaw"}',
    ],
)  # fmt: skip
async def test_what_else_a_box_asks_of_it_is_not_done(wire: socket.socket, tmp_path: Path, asked: bytes) -> None:
    asks, installing = install.install, Installing()
    wire.send(asked)
    with mock.patch.object(install, "install", installing):
        await asks(install.package("openclaw"), tmp_path / "none", lambda words: None)
    assert installing.asked == ["openclaw"]  # once, for the request that was one


async def test_the_caches_of_boxes_that_share_a_package_are_apart(tmp_path: Path) -> None:
    package = install.package("openclaw")
    shared, state = tmp_path / "shared", tmp_path / "m1/state"
    assert package.compile_cache(shared, state).is_relative_to(shared)
    with mock.patch.dict(os.environ, {install.ASK_VARIABLE: "3"}):
        assert package.compile_cache(shared, state).is_relative_to(tmp_path / "m1")


def test_a_signal_that_comes_early_is_heard(house: House) -> None:
    """A namespace's first process hears no SIGTERM before it listens: it is asked again."""
    listens = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); time.sleep(600)"
    with house.runs(HERE, listens) as parent:
        parent.send_signal(signal.SIGCONT)
        while not house.record.with_suffix(".pid").exists():
            assert parent.is_running()
        while len(parent.children()) == 0:
            assert parent.is_running()
        parent.terminate()
        assert parent.wait(SECONDS) in (7, 143, -15)
