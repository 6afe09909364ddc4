"""A machine becomes what its identity says: its name, who may log in, which ports are open, what its box dials.

As root; every part may be done again, and does something only where something has changed. Root writes into folders of
the box's user only as that user: its owner may have put a link there.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from tinyfat.box.private_file import write_private
from tinyfat.box.site import set_site
from tinyfat.domain.enrolment import (
    AGAIN_SECONDS,
    BOX_STATE_FOLDER,
    BOX_UNIT,
    BOX_USER,
    HOST_KEY_FILE,
    IDENTITY_FILE,
    IDENTITY_TIMER_FILE,
    IDENTITY_TIMER_UNIT,
    IDENTITY_WANTED,
    INPUT_RULES_FILE,
    OPERATOR_USER,
    OWNER_USER,
    RUNTIMES_FOLDER,
    SSH_FOLDER,
    Identity,
    input_rules,
    ssh_principal,
)

COMMAND_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 360.0  # of the box: its runtime finishes the turn it is at
_DIALLED = ("machine_id", "runtime", "link_url", "link_token", "link_ca")  # a box reads them when it starts

Run: TypeAlias = Callable[[list[str], float], None]


class BecomeFailed(Exception):
    """A part of the identity could not be put in force."""


def run(argv: list[str], seconds: float = COMMAND_SECONDS_MAX) -> None:
    """Raises BecomeFailed with the command's last words."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BecomeFailed(f"`{' '.join(argv)}` did not end well ({type(error).__name__})") from error
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise BecomeFailed(f"`{' '.join(argv)}` ended with {done.returncode}: {' '.join(words[-3:])[:500]}")


class Machine:
    """The machine this runs on; in tests a folder that stands for it."""

    def __init__(self, root: Path = Path("/"), command: Run = run, box_user: str = BOX_USER) -> None:
        self.root = root
        self.command = command
        self.box_user = box_user
        self.again = False  # every file counts as changed: what it is for was not put in force yet

    def path(self, absolute: str) -> Path:
        return self.root / absolute.lstrip("/")

    def write(self, absolute: str, text: str, mode: int = 0o644) -> bool:
        """The whole file or the old one. False where it said so already, and that is in force."""
        file = self.path(absolute)
        if file.exists() and file.read_text("utf-8") == text:
            return self.again
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(file.name + ".tinyfat-new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as out:
            os.fchmod(out.fileno(), mode)
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
        return True

    @contextmanager
    def as_box_user(self) -> Iterator[None]:
        """For writing where the box's user may have put links. This program has one thread."""
        user = pwd.getpwnam(self.box_user)
        was = os.geteuid(), os.getegid(), os.getgroups()
        root = was[0] == 0
        if root:
            os.setgroups([])
            os.setegid(user.pw_gid)
            os.seteuid(user.pw_uid)
        try:
            yield
        finally:
            if root:
                os.seteuid(was[0])
                os.setegid(was[1])
                os.setgroups(was[2])


def become(machine: Machine, identity: Identity, authority: str) -> None:
    """`authority`: PEM of what vouches for the control plane; "": the system's. The box last: by then everything else
    that could be done is done. Raises BecomeFailed with all that could not."""
    seen = {"serial": identity.serial, "hostname": identity.hostname, "agent_name": identity.agent_name}
    in_force = machine.path(IDENTITY_FILE)  # while it is missing, nobody knows
    machine.again = not in_force.exists()
    in_force.unlink(missing_ok=True)
    parts: Mapping[str, Callable[[], None]] = {
        "the hostname": lambda: _name(machine, identity),
        "SSH": lambda: _ssh(machine, identity),
        "the firewall": lambda: _firewall(machine, identity),
        "the box": lambda: _box(machine, identity, authority),
        "its site": lambda: set_site(machine, identity),
        "when it asks again": lambda: _again(machine, identity.again_seconds),
    }
    complaints = []
    for name, part in parts.items():
        try:
            part()
        except (BecomeFailed, OSError, KeyError) as error:
            complaints.append(f"{name} could not be set ({error})")
    if complaints:
        raise BecomeFailed("; ".join(complaints))
    machine.write(IDENTITY_FILE, json.dumps(seen, indent=1) + "\n", 0o600)


def _name(machine: Machine, identity: Identity) -> None:
    short = identity.hostname.partition(".")[0]
    hosts = machine.path("/etc/hosts")
    lines = hosts.read_text("utf-8").splitlines() if hosts.exists() else []
    kept = [line for line in lines if line.split()[:1] != ["127.0.1.1"]]
    machine.write("/etc/hosts", "\n".join([*kept, f"127.0.1.1 {identity.hostname} {short}"]) + "\n")
    if machine.write("/etc/hostname", short + "\n"):
        machine.command(["hostname", short], COMMAND_SECONDS_MAX)


def _ssh(machine: Machine, identity: Identity) -> None:
    """sshd reads who may come in at each login, and its own key when it starts: a reload closes its port for a moment,
    and whoever logs in just then is refused."""
    machine.write(f"{SSH_FOLDER}/user_ca.pub", identity.ssh_ca + "\n")
    machine.write(f"{SSH_FOLDER}/keys/{OWNER_USER}", "".join(f"{key}\n" for key in identity.owner_keys))
    machine.write(f"{SSH_FOLDER}/principals/{OPERATOR_USER}", ssh_principal(identity.machine_id) + "\n")
    host_key = machine.path(HOST_KEY_FILE)
    if machine.write(HOST_KEY_FILE, identity.ssh_host_key, 0o600):
        host_key.with_name(host_key.name + ".pub").unlink(missing_ok=True)  # of another key; sshd needs none
        machine.command(["systemctl", "try-reload-or-restart", "ssh.service"], COMMAND_SECONDS_MAX)


def _firewall(machine: Machine, identity: Identity) -> None:
    if machine.write(INPUT_RULES_FILE, input_rules(identity.ssh_networks, identity.site is not None), 0o600):
        machine.command(["nft", "-f", "/etc/nftables.conf"], COMMAND_SECONDS_MAX)


def _box(machine: Machine, identity: Identity, authority: str) -> None:
    """Restarted only where it would dial otherwise: a claim, a new key leave the runtime that is up alone."""
    folder = machine.path(BOX_STATE_FOLDER)
    wanted = {
        "machine_id": identity.machine_id,
        "agent_name": identity.agent_name,
        "runtime": identity.runtime,
        "link_url": identity.link_url,
        "link_token": identity.link_token,
        "link_ca": authority,
        "shared_folder": RUNTIMES_FOLDER,
        "identity_serial": identity.serial,
        "identity_wanted": IDENTITY_WANTED,
    }
    with machine.as_box_user():
        folder.mkdir(mode=0o700, exist_ok=True)
        before = _known(folder / "box.json")
        if before != wanted:
            write_private(folder / "box.json", json.dumps(wanted))
    stale = before is not None and any(before.get(name) != wanted[name] for name in _DIALLED)
    machine.command(["systemctl", "restart" if stale else "start", BOX_UNIT], STOP_SECONDS_MAX)


def _again(machine: Machine, seconds: int) -> None:
    """systemd.timer(5): an empty value ends all that the unit's own file says of when."""
    file = machine.path(IDENTITY_TIMER_FILE)
    if seconds == AGAIN_SECONDS and not file.exists():
        return  # as the unit says by itself
    lines = ("[Timer]", "OnActiveSec=", f"OnActiveSec={seconds}", f"OnUnitActiveSec={seconds}")
    text = "\n".join((*lines, f"RandomizedDelaySec={seconds // 24}", "AccuracySec=1")) + "\n"
    if machine.write(IDENTITY_TIMER_FILE, text):
        machine.command(["systemctl", "daemon-reload"], COMMAND_SECONDS_MAX)
        machine.command(["systemctl", "restart", IDENTITY_TIMER_UNIT], COMMAND_SECONDS_MAX)


def _known(file: Path) -> dict[str, object] | None:
    try:
        body = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return body if isinstance(body, dict) else None
