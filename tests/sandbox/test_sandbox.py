"""A hostile program in a box's sandbox tries everything it must not, and everything it may."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sandbox.prey import prey
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
