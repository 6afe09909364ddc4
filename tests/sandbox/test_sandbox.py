"""A hostile program in a box's sandbox tries everything it must not, and everything it may."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.prey import prey
from tinyfat.domain.machines import MachineOrder, MachineState
from tinyfat.drivers.machines.process import ProcessMachines
from tinyfat.ports.machines import MachineRefused
from tinyfat.sandbox import means
from tinyfat.sandbox.means import Means

HERE = means.here()
pytestmark = pytest.mark.skipif(not HERE.any, reason="the kernel here has no Landlock and no user namespaces")
needs_rooms = pytest.mark.skipif(not HERE.namespaces, reason="no user namespaces here")
needs_landlock = pytest.mark.skipif(not HERE.landlock, reason="no Landlock here")


def limited(abi: int, namespaces: bool) -> Means:
    """This kernel as if it were an older one."""
    return Means(min(abi, HERE.landlock), namespaces, HERE.seccomp)


def done(found: dict[str, object]) -> set[str]:
    return {name for name, result in found.items() if result is True}


MAY = {
    "may_write_its_own_folder",
    "may_write_its_temporary_folder",
    "may_run_programs",
    "may_import_what_it_runs_with",
    "may_connect_elsewhere",
    "may_listen_for_itself",
    "may_listen_where_no_other_box_may",
    "may_use_pairs_and_interfaces",
    "may_signal_and_trace_its_own",
}
MAY_IN_A_ROOM = MAY | {"may_write_tmp", "may_open_a_terminal_of_its_own"}
MAY_WITH_SCOPES = {"may_use_sockets_of_its_own"}
WITHOUT_A_ROOM = {"change_a_mode_outside", "read_the_planes_arguments"}
WITHOUT_PORTS = {
    "connect_to_a_closed_port",
    "connect_to_a_closed_port_by_ipv6",
    "connect_by_fast_open_later",
    "listen_on_a_closed_port",
    "listen_where_another_box_will",
}


@needs_rooms
@needs_landlock
def test_what_the_whole_sandbox_holds(tmp_path: Path) -> None:
    if HERE.landlock < 6:
        pytest.skip("Landlock's scopes came with ABI 6")
    with prey(tmp_path) as caught:
        assert done(caught.hunted(HERE)) == MAY_IN_A_ROOM | MAY_WITH_SCOPES
        assert Path(caught.targets["writable"]).read_text() == "the operator's writable"


@needs_rooms
@needs_landlock
def test_what_a_room_holds_before_landlock_had_scopes(tmp_path: Path) -> None:
    """As on Debian 12's successors with Linux 6.7: as good, but for Unix sockets of one's own."""
    with prey(tmp_path) as caught:
        assert done(caught.hunted(limited(4, namespaces=True))) == MAY_IN_A_ROOM


@needs_rooms
def test_what_a_room_holds_without_landlock(tmp_path: Path) -> None:
    with prey(tmp_path) as caught:
        assert done(caught.hunted(Means(0, True, HERE.seccomp))) == MAY_IN_A_ROOM | WITHOUT_PORTS


@needs_landlock
def test_what_landlock_alone_holds(tmp_path: Path) -> None:
    """As on Ubuntu 24.04, whose AppArmor keeps ordinary users from namespaces."""
    if HERE.landlock < 6:
        pytest.skip("Landlock's scopes came with ABI 6")
    with prey(tmp_path) as caught:
        assert done(caught.hunted(limited(7, namespaces=False))) == MAY | WITHOUT_A_ROOM


@needs_landlock
def test_what_the_first_landlock_of_use_holds(tmp_path: Path) -> None:
    with prey(tmp_path) as caught:
        found = done(caught.hunted(limited(2, namespaces=False)))
        assert found == MAY | WITHOUT_A_ROOM | WITHOUT_PORTS | {"empty_outside", "signal_the_plane"}


def test_a_home_below_what_is_granted_is_not_granted(tmp_path: Path) -> None:
    """An operator may keep everything below one folder, certificates too."""
    with prey(tmp_path) as caught:
        found = caught.hunted(HERE, SSL_CERT_DIR=str(tmp_path))
        assert found["read_the_key"] is not True and found["read_another_box"] is not True


def test_what_does_not_hold_is_said() -> None:
    assert Means(7, True, True).gaps() == () and Means(4, True, True).all
    assert not Means(3, True, True).all and "write to other agents" in Means(3, True, True).words
    assert not Means(7, False, True).all and "modes and times" in Means(7, False, True).words
    assert "end your programs" in Means(5, False, True).words and "end your" not in Means(6, False, True).words
    assert "empty your files" in Means(2, False, True).words and "empty" not in Means(3, False, True).words
    assert not Means(7, True, False).all  # multipath TCP goes past Landlock's ports
    for none in (Means(), Means(7, False, False), Means(0, False, True)):
        assert not none.any and not none.all and "every key of TinyFat" in none.words


@pytest.mark.parametrize(("program", "works"), [("raise SystemExit(0)", True), ("raise SystemExit(71)", False)])
def test_the_trials_word_is_the_kernels(monkeypatch: pytest.MonkeyPatch, program: str, works: bool) -> None:
    _runs_instead(monkeypatch, program)
    assert means._works(HERE) is works


@pytest.mark.parametrize(
    "program", ["raise MemoryError", "import os; os.kill(os.getpid(), 9)", "import threading; threading.Event().wait()"]
)
def test_a_trial_that_says_nothing_is_not_taken_for_no_sandbox(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Else a host that was out of memory for a moment would start its boxes without one."""
    monkeypatch.setattr(means, "TRIAL_SECONDS_MAX", 0.5)
    _runs_instead(monkeypatch, program)
    with pytest.raises(means.MeansUnknown):
        means._works(HERE)


async def test_where_it_is_not_known_no_box_is_started(tmp_path: Path) -> None:
    def unknown() -> Means:
        raise means.MeansUnknown("out of memory")

    machines = ProcessMachines(tmp_path / "home/machines", tmp_path / "shared", time.monotonic, unknown)
    with pytest.raises(MachineRefused, match="out of memory"):
        await machines.start(MachineOrder("m1", "ada", "echo", "ws://127.0.0.1:9/box/link", "token"))
    assert (await machines.look("m1")).state is MachineState.GONE
    assert "out of memory" in await machines.sandbox_words()


def _runs_instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """In the trial's place."""
    runs = subprocess.run

    def run(argv: list[str], **how: Any) -> subprocess.CompletedProcess[bytes]:
        return runs([argv[0], "-c", program], **how)

    monkeypatch.setattr(subprocess, "run", run)
