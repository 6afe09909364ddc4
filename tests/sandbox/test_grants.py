"""Which paths are granted, and which ports are not. Pure but for folders of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinyfat.drivers.machines.process_ports import BOXES_PORTS, PORTS_EACH, closed_ports, own_ports, seen_by
from tinyfat.sandbox import grants
from tinyfat.sandbox.landlock import Ports


def test_links_are_followed_and_what_lies_below_is_one(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "usr/conf").write_text("")
    (tmp_path / "conf").symlink_to("usr/conf")
    found = grants.reached([tmp_path / "bin", tmp_path / "usr", tmp_path / "usr/bin", tmp_path / "conf"])
    assert found == (tmp_path / "bin", tmp_path / "conf", tmp_path / "usr")


def test_what_would_show_the_home_is_left_out(tmp_path: Path) -> None:
    home = tmp_path / "opt/tinyfat/data"
    home.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "opt")
    paths = (
        tmp_path / "opt",
        tmp_path / "opt/tinyfat",
        home,
        tmp_path / "link",
        home / "inside",
        tmp_path / "opt/other",
    )
    assert grants.without(paths, home) == (home / "inside", tmp_path / "opt/other")


def test_nothing_of_etc_holds_a_secret() -> None:
    granted = {str(path) for path in grants.system()}
    assert not granted & {
        "/",
        "/etc",
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/ssl",
        "/etc/ssl/private",
        "/etc/ssh",
        "/home",
    }
    assert not [path for path in granted if path.startswith(("/root", "/home", "/var", "/run", "/tmp"))]


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        (None, set()),
        ("postgresql://tinyfat@/postgres?host=/home/op/.tinyfat", set()),
        ("postgresql://%2Fvar%2Frun/postgres", set()),
        ("postgresql:///tinyfat", {5432}),
        ("postgresql://u:p@db.example.org/tinyfat", {5432}),
        ("postgresql://u:p@127.0.0.1:6543/tinyfat", {6543}),
        ("postgresql://u:p%40@one:1111,two:2222/tinyfat", {1111, 2222}),
        ("postgresql://[::1]:7777/tinyfat", {7777}),
        ("postgresql://u@/t?host=127.0.0.1&port=8888", {8888}),
        ("postgresql://u@/t?hostaddr=127.0.0.1", {5432}),
    ],
)
def test_the_databases_ports(url: str | None, ports: set[int]) -> None:
    found = closed_ports(2525, (8025, 8026), url, ())
    assert found.no_connect == {2525} | ports and found.no_bind == {2525, 8025, 8026} | ports


def test_a_port_that_is_not_known_yet_closes_nothing() -> None:
    found = closed_ports(0, (0, 8026), None, (25, 0))
    assert found.no_connect == {25} and found.no_bind == {25, 8026}


def test_each_box_has_ports_that_no_other_may_listen_on() -> None:
    numbers = range(len(BOXES_PORTS) // PORTS_EACH)
    assert sorted(port for number in numbers for port in own_ports(number)) == list(BOXES_PORTS)
    closed = Ports(frozenset({2525}), frozenset({8025}))
    for number in (0, 7, numbers[-1]):
        found = seen_by(number, closed)
        assert found.no_connect == {2525}  # it may call them: they ask who calls
        assert found.no_bind == {8025, *BOXES_PORTS} - set(own_ports(number))
    with pytest.raises(ValueError, match="at most 500"):
        own_ports(numbers[-1] + 1)
