"""A machine forgets who it was, so that an image can be made of its disk; then its power goes. As root.

What stays is what any machine of ours has: Debian, the folders under ROOT_FOLDER, the firewall with no port open. The
keys by which this machine fetched the word to do so go last: where something fails, it is done again. See
docs/decisions/0008.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tinyfat.box.become import COMMAND_SECONDS_MAX, STOP_SECONDS_MAX, BecomeFailed, Machine
from tinyfat.domain.enrolment import (
    BOX_UNIT,
    CONFIG_FOLDER,
    ENROL_UNIT,
    IDENTITY_PATH_UNIT,
    INPUT_RULES_FILE,
    ROOT_FOLDER,
    SITE_FOLDER,
    SITE_STATE_FOLDER,
    SITE_VIEW_UNIT,
    SSH_FOLDER,
    STATE_FOLDER,
)

SWAP_FILE = "/swapfile"
# Of one machine: who it is, who may come in, what happened on it.
_FILES = (
    *("/etc/hostname", "/var/lib/dbus/machine-id"),
    *("/var/lib/systemd/random-seed", "/var/lib/systemd/credential.secret"),
    *("/etc/ssh/ssh_host_*", "/etc/ssh/sshd_config.d/10-tinyfat.conf", SSH_FOLDER),
    "/etc/sudoers.d/90-cloud-init-users",
    *("/root/.ssh", "/root/.*_history", "/root/.cache", "/home/*/.ssh", "/home/*/.*_history", "/home/*/.cache"),
    *(f"{STATE_FOLDER}/*", f"{STATE_FOLDER}/.[!.]*", f"{ROOT_FOLDER}/runtimes/.*.npm-cache"),
    *("/var/log/*.log", "/var/log/*.log.*", "/var/log/*/*", "/var/log/[bw]tmp", "/var/log/lastlog"),
    *(f"{SITE_FOLDER}/*", f"{SITE_STATE_FOLDER}/*"),
    *("/var/lib/dhcp/*", "/var/lib/apt/lists/*", "/var/cache/apt/*.bin"),
    *("/tmp/*", "/var/tmp/*"),  # noqa: S108 - emptied, not trusted
)
# What user-data laid, and lays again on the next machine.
_UNITS = (
    "/etc/systemd/system/tinyfat-*",
    f"/etc/systemd/system/{SITE_VIEW_UNIT}",
    "/etc/systemd/system/*.wants/tinyfat-*",
)


def seal(machine: Machine) -> None:
    """Raises BecomeFailed, OSError; whoever asks again goes on with what is left."""
    command = machine.command
    command(["systemctl", "stop", BOX_UNIT], STOP_SECONDS_MAX)
    command(["systemctl", "disable", BOX_UNIT, ENROL_UNIT, IDENTITY_PATH_UNIT], COMMAND_SECONDS_MAX)
    command(["journalctl", "--relinquish-var"], COMMAND_SECONDS_MAX)  # what is still said goes with this boot
    command(["apt-get", "clean"], COMMAND_SECONDS_MAX)
    _no_swap(machine)
    command(["cloud-init", "clean", "--logs"], COMMAND_SECONDS_MAX)
    for pattern in _FILES:
        _remove(machine, pattern)
    machine.path("/etc/machine-id").write_text("")  # machine-id(5): an empty one is made anew by the next boot
    _forget_name(machine.path("/etc/hosts"))
    for pattern in _UNITS:
        _remove(machine, pattern)
    machine.write(INPUT_RULES_FILE, "", 0o600)  # the ruleset that stays includes it
    for left in machine.path(CONFIG_FOLDER).iterdir():
        if left != machine.path(INPUT_RULES_FILE):
            _remove_one(left)
    command(["sync"], COMMAND_SECONDS_MAX)
    command(["systemctl", "--no-block", "poweroff"], COMMAND_SECONDS_MAX)


def _no_swap(machine: Machine) -> None:
    """A snapshot is paid by its size, and the next machine makes swap of its own."""
    swap, table = machine.path(SWAP_FILE), machine.path("/etc/fstab")
    if not swap.exists():
        return
    with suppress(BecomeFailed):  # it was off already
        machine.command(["swapoff", SWAP_FILE], COMMAND_SECONDS_MAX)
    _without(table, lambda line: line.split()[:1] == [SWAP_FILE])
    swap.unlink()


def _forget_name(hosts: Path) -> None:
    _without(hosts, lambda line: line.split()[:1] == ["127.0.1.1"])


def _without(file: Path, unwanted: Callable[[str], bool]) -> None:
    if file.exists():
        lines = file.read_text("utf-8").splitlines()
        file.write_text("".join(f"{line}\n" for line in lines if not unwanted(line)))


def _remove(machine: Machine, pattern: str) -> None:
    for path in sorted(machine.root.glob(pattern.lstrip("/"))):
        _remove_one(path)


def _remove_one(path: Path) -> None:
    """What is mounted there, or in use by the kernel, stays: it is no part of the disk."""
    if os.path.ismount(path):
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
