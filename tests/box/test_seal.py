"""A machine that an image is made of forgets who it was: a folder stands for it, what root would run is noted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.box.enrolling import Commands, ControlPlane, identity
from tests.box.enrolling import machine as machine_of
from tinyfat.box.become import BecomeFailed, Machine
from tinyfat.box.enrol import EXIT_AGAIN, main
from tinyfat.box.seal import SWAP_FILE, seal
from tinyfat.domain.enrolment import ENROL_FILE, INPUT_RULES_FILE, MACHINE_KEY_FILE

OF_ONE_MACHINE = (
    *("etc/hostname", "etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_rsa_key.pub", "etc/ssh/tinyfat/keys/owner"),
    *("root/.ssh/authorized_keys", "root/.bash_history", "home/owner/.ssh/authorized_keys", "home/owner/.bash_history"),
    *("var/lib/tinyfat/box/box.json", "var/lib/tinyfat/.npm", "var/log/cloud-init.log", "var/log/journal/1a/system"),
    *("var/log/apt/history.log", "var/lib/apt/lists/deb.debian.org_main", "tmp/secret", "etc/tinyfat/identity.json"),
    *("etc/tinyfat-site/key.pem", "var/lib/tinyfat-site/acme", "etc/systemd/system/run-tinyfat-site.mount"),
    *("etc/systemd/system/tinyfat-box.service", "etc/systemd/system/multi-user.target.wants/tinyfat-box.service"),
)
OF_ANY = ("opt/tinyfat/box/current/tinyfat/__init__.py", "opt/tinyfat/runtimes/x/compile-cache/1", "etc/nftables.conf")


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
def lived(tmp_path: Path, commands: Commands) -> Machine:
    """A machine that was somebody."""
    made = machine_of(tmp_path / "root", commands, "https://192.0.2.1:1", "")
    for path in (*OF_ONE_MACHINE, *OF_ANY):
        file = made.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("something")
    made.path(MACHINE_KEY_FILE).write_text("key")
    made.path(INPUT_RULES_FILE).write_text("tcp dport 22 accept\n")
    made.path("/etc/machine-id").write_text("0123456789abcdef\n")
    made.path("/etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 ada.example.org ada\n")
    made.path("/etc/fstab").write_text(f"/dev/sda1 / ext4\n{SWAP_FILE} none swap sw 0 0\n")
    made.path(SWAP_FILE).write_text("swapped")
    return made


def test_what_is_one_machines_own_goes_and_the_rest_stays(lived: Machine, commands: Commands) -> None:
    seal(lived)

    left = [path for path in OF_ONE_MACHINE if lived.path(path).is_file()]
    assert left == []
    assert [path for path in OF_ANY if not lived.path(path).is_file()] == []
    assert not lived.path(ENROL_FILE).exists()
    assert not lived.path(MACHINE_KEY_FILE).exists()
    assert lived.path("/etc/machine-id").read_text() == ""
    assert lived.path("/etc/hosts").read_text() == "127.0.0.1 localhost\n"
    assert lived.path("/etc/fstab").read_text() == "/dev/sda1 / ext4\n"
    assert not lived.path(SWAP_FILE).exists()


def test_the_firewall_stays_and_lets_nobody_in(lived: Machine) -> None:
    seal(lived)
    assert lived.path(INPUT_RULES_FILE).read_text() == ""


def test_the_box_ends_first_and_the_power_goes_last(lived: Machine, commands: Commands) -> None:
    seal(lived)

    ran = commands.taken()
    assert ran[0] == "systemctl stop tinyfat-box.service"
    assert ran[-2:] == ["sync", "systemctl --no-block poweroff"]
    assert "cloud-init clean --logs" in ran


@pytest.mark.parametrize("failing", ["stop tinyfat-box", "cloud-init clean", "apt-get clean"])
def test_where_a_part_fails_it_can_be_done_again(lived: Machine, commands: Commands, failing: str) -> None:
    """It still knows by what to ask for the word to do so, and its power stays."""
    commands.failing = failing
    with pytest.raises(BecomeFailed):
        seal(lived)
    assert lived.path(ENROL_FILE).exists()
    assert lived.path(MACHINE_KEY_FILE).exists()
    assert "poweroff" not in " ".join(commands.taken())

    commands.failing = ""
    seal(lived)
    assert not lived.path(ENROL_FILE).exists()


def test_it_is_done_by_an_identity_that_says_so(tmp_path: Path, commands: Commands) -> None:
    with ControlPlane(tmp_path / "tls") as plane:
        plane.ledger.identity = identity(agent_name="", owner_keys=(), sealed=True)
        made = machine_of(tmp_path / "m", commands, plane.url, plane.authority.pem)
        made.path("/etc/machine-id").write_text("1\n")
        assert main(made) == 0
    assert commands.taken()[-1] == "systemctl --no-block poweroff"


def test_the_machine_of_an_agent_is_never_sealed(tmp_path: Path, commands: Commands) -> None:
    """Whatever the control plane says: there is something to lose on it."""
    with ControlPlane(tmp_path / "tls") as plane:
        plane.ledger.identity = identity(agent_name="ada", sealed=True)
        made = machine_of(tmp_path / "m", commands, plane.url, plane.authority.pem)
        assert main(made) == EXIT_AGAIN
    assert commands.taken() == []
    assert made.path(ENROL_FILE).exists()
