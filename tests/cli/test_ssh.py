"""The operator's way in, with the real ssh and a real sshd: a certificate for this machine, a host key known before."""

from __future__ import annotations

import asyncio
import getpass
import shutil
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.machine_speed import patient
from tests.running import free_port, until
from tinyfat.cli.ssh import _new_key, _write_down, ssh_argv
from tinyfat.domain.enrolment import ssh_principal
from tinyfat.drivers.authorities.ssh import SshAuthority

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
pytestmark = pytest.mark.skipif(
    not (Path(SSHD).exists() and shutil.which("ssh")), reason="no sshd: apt-get install openssh-server"
)
AUTHORITY = SshAuthority(b"s" * 32)
MACHINE, AGENT = "m-1", "a-1"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """Of a machine that takes our authority's certificates for itself, and nothing else."""
    private, _ = AUTHORITY.host_key(AGENT)
    files = {
        "host_key": private,
        "user_ca.pub": AUTHORITY.public_line + "\n",
        "principals": ssh_principal(MACHINE) + "\n",
        "sshd_config": f"""
            HostKey {tmp_path}/sshd/host_key
            TrustedUserCAKeys {tmp_path}/sshd/user_ca.pub
            AuthorizedPrincipalsFile {tmp_path}/sshd/principals
            AuthorizedKeysFile none
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            StrictModes no
            PidFile none
            """,
    }
    (tmp_path / "sshd").mkdir()
    for name, text in files.items():
        (tmp_path / "sshd" / name).write_text(text)
        (tmp_path / "sshd" / name).chmod(0o600)
    number = free_port()
    Path("/run/sshd").mkdir(exist_ok=True) if getpass.getuser() == "root" else None
    sshd = await asyncio.create_subprocess_exec(
        SSHD, "-D", "-e", "-f", str(tmp_path / "sshd/sshd_config"), "-o", f"Port={number}",
        "-o", "ListenAddress=127.0.0.1", stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", number)
        except OSError:
            return False
        writer.close()
        return True

    await until(listens, 10.0, "sshd listens")
    yield number
    sshd.terminate()
    await sshd.wait()


def session(folder: Path, port: int, **changes: Any) -> dict[str, Any]:
    folder.mkdir(mode=0o700)
    public = _new_key(folder, "ada")
    machine = changes.pop("machine", MACHINE)
    certificate = AUTHORITY.sign_user(public, [ssh_principal(machine)], 300, "op", 1, datetime.now(UTC))
    return {
        "certificate": certificate,
        "user": getpass.getuser(),
        "address": "127.0.0.1",
        "port": port,
        "hostname": "ada.tinyfat.localhost",
        "host_key": AUTHORITY.host_key(AGENT)[1],
        **changes,
    }


async def ran(folder: Path, made: dict[str, Any], *command: str) -> tuple[int, str, str]:
    _write_down(folder, made)
    child = await asyncio.create_subprocess_exec(
        *ssh_argv(folder, made, command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    out, errors = await asyncio.wait_for(child.communicate(), patient(30.0))
    return child.returncode or 0, out.decode(), errors.decode()


async def test_a_command_as_it_was_said_and_its_exit_code(tmp_path: Path, port: int) -> None:
    made = session(tmp_path / "s", port)
    assert (await ran(tmp_path / "s", made, "echo", "it's  two", "$HOME"))[:2] == (0, "it's  two $HOME\n")
    assert (await ran(tmp_path / "s", made, "sh", "-c", "exit 7"))[0] == 7


async def test_another_host_key_is_not_trusted(tmp_path: Path, port: int) -> None:
    made = session(tmp_path / "s", port, host_key=AUTHORITY.host_key("another")[1])
    code, out, errors = await ran(tmp_path / "s", made, "echo", "in")
    assert code == 255 and out == "" and "verification failed" in errors.lower()


async def test_the_certificate_of_another_machine_opens_nothing(tmp_path: Path, port: int) -> None:
    made = session(tmp_path / "s", port, machine="m-2")
    code, out, errors = await ran(tmp_path / "s", made, "echo", "in")
    assert code == 255 and out == "" and "denied" in errors.lower()
