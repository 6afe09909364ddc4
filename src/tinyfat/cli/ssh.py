"""`tinyfat ssh NAME`: the operator's way into an agent's server, and `tinyfat audit`: who went that way.

A key made for this one session, a certificate of ours for minutes and one machine, a host key that we knew before the
machine existed. The real ssh does the rest.
"""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tinyfat.cli.client import Client, CommandFailed
from tinyfat.cli.output import local_time, print_json, print_table
from tinyfat.settings import load_settings

CONNECT_SECONDS_MAX = 15
KEYGEN_SECONDS_MAX = 20.0


def ssh(
    name: Annotated[str, typer.Argument(help="The agent's name.")],
    command: Annotated[list[str] | None, typer.Argument(help="What to run there, after `--`; else a shell.")] = None,
    why: Annotated[str, typer.Option(help="For the audit log.")] = "",
) -> None:
    """Log in to an agent's server as operator. Who, when, for how long and why is in `tinyfat audit`."""
    for program in ("ssh", "ssh-keygen"):
        if shutil.which(program) is None:
            raise CommandFailed(
                f"There is no {program} here. On Debian and Ubuntu: sudo apt-get install openssh-client"
            )
    client = Client(load_settings())
    with tempfile.TemporaryDirectory(prefix="tinyfat-ssh-") as made:
        folder = Path(made)
        body = {
            "public_key": _new_key(folder, name),
            "who": _who(),
            "why": why,
            "command": shlex.join(command or []),
        }
        session = client.post("agents", name, "ssh-sessions", body=body)
        _write_down(folder, session)
        code = _run(ssh_argv(folder, session, command or []))
    client.post("ssh-sessions", str(session["serial"]), "ended", body={"exit_code": code})
    raise typer.Exit(code if code >= 0 else 128 - code)


def audit(
    name: Annotated[str | None, typer.Argument(help="Of this agent alone.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many of the newest.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Who logged in to which agent's server as operator, when, for how long, why."""
    sessions = Client(load_settings()).get("ssh-sessions", name=name or "", limit=limit)
    if as_json:
        print_json(sessions)
        return
    rows = [
        (
            str(session["serial"]),
            local_time(session["started_at"]),
            session["agent_name"],
            session["who"],
            _lasted(session),
            session["command"] or "(shell)",
            session["why"] or "-",
        )
        for session in sessions
    ]
    print_table(("session", "began", "agent", "who", "lasted", "command", "why"), rows, "Nobody logged in.")


def ssh_argv(folder: Path, session: dict[str, Any], command: Sequence[str]) -> list[str]:
    """Nothing of the operator's own configuration counts, and nobody is trusted on first use."""
    options = {
        "IdentityFile": str(folder / "key"),
        "CertificateFile": str(folder / "key-cert.pub"),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "UserKnownHostsFile": str(folder / "known_hosts"),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "HostKeyAlias": session["hostname"],
        "HostKeyAlgorithms": "ssh-ed25519",
        "UpdateHostKeys": "no",
        "ForwardAgent": "no",
        "ClearAllForwardings": "yes",
        "ConnectTimeout": str(CONNECT_SECONDS_MAX),
        "LogLevel": "ERROR",
    }
    flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    where = ["-p", str(session["port"]), "-l", session["user"], "--", session["address"]]
    return ["ssh", "-F", "none", *flags, *where, *([shlex.join(command)] if command else [])]


def _new_key(folder: Path, name: str) -> str:
    """Its public line."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"tinyfat ssh {name}", "-f", str(folder / "key")],
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=KEYGEN_SECONDS_MAX,
    )
    return (folder / "key.pub").read_text("ascii").strip()


def _write_down(folder: Path, session: dict[str, Any]) -> None:
    (folder / "key-cert.pub").write_text(session["certificate"] + "\n", "ascii")
    (folder / "known_hosts").write_text(f"{session['hostname']} {session['host_key']}\n", "ascii")


def _run(argv: list[str]) -> int:
    """Ctrl-C is the session's, not ours: the end must be written down."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = subprocess.Popen(argv, preexec_fn=_hear_interrupts)  # one thread, before exec
        return child.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _who() -> str:
    """As the host knows them; behind sudo, who they were before."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"


def _lasted(session: dict[str, Any]) -> str:
    if session["seconds"] is None:
        return "not said"
    ended = f"{session['seconds']:.0f} s"
    return ended if session["exit_code"] == 0 else f"{ended}, exit {session['exit_code']}"
