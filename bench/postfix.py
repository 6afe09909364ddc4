"""A Postfix of our own: its own configuration, queue and port; the system's Postfix is neither asked nor touched.

What a benchmark would not be fair without is set in the peer's favour: no pause when mail comes in faster than it
leaves (in_flow_delay), no counting of clients (anvil), enough processes for every connection. Everything else, the
fsync of each mail before its 250 with it, is as Postfix comes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.running import free_port, until

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 30.0
PROCESSES_MAX = 100
INSTALLER = Path("tests/stories/install_mail_peers.sh")
INSTALL_SECONDS_MAX = 600.0

_SERVICES = f"""\
127.0.0.1:{{port}} inet n - n - {PROCESSES_MAX} smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class PostfixFailed(Exception):
    """The peer did not start or stop."""


async def missing() -> str:
    """Why Postfix cannot be measured here, in one line; "" where it can. Installs it where that is our place to."""
    if os.geteuid() != 0:
        return "Postfix starts as root only; this is an ordinary user"
    if not _installed() and shutil.which("apt-get") and INSTALLER.exists():
        print("installing Postfix ...", file=sys.stderr, flush=True)
        process = await asyncio.create_subprocess_exec("sh", str(INSTALLER), stdout=sys.stderr)
        async with asyncio.timeout(INSTALL_SECONDS_MAX):
            await process.wait()
    if not _installed():
        return "Postfix is not installed (on Debian, as root: make story-mail installs it)"
    namespace = await asyncio.create_subprocess_exec("unshare", "--mount", "true", stderr=asyncio.subprocess.DEVNULL)
    return "" if await namespace.wait() == 0 else "this root may make no mount namespace, and Postfix gets one"


def _installed() -> bool:
    return shutil.which("postfix") is not None and Path("/usr/lib/postfix/sbin/master").exists()


class Postfix:
    """`async with Postfix(folder, settings, services) as postfix`. The folder's path must be open to all users."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str], services: str = "", as_the_systems: bool = False
    ) -> None:
        """`settings`: main.cf beyond what every instance needs; `services`: further lines of master.cf.

        `as_the_systems`: to its own processes, and what they start, this is the system's Postfix, so that sendmail
        hands it mail; to everybody else it is not.
        """
        self.port = free_port()
        self.configuration = folder / "configuration"
        self.queue = folder / "queue"
        self._data = folder / "data"
        self.log = folder / "mail.log"
        # Postfix's commands take no configuration from ordinary users but the system's own: so ours lies over it, in a
        # mount namespace (mount_namespaces(7)) that only this instance sees.
        over = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/postfix && exec postfix start')
        in_place = ("postfix", "-c", str(self.configuration), "start")
        self._start = (*over, str(self.configuration)) if as_the_systems else in_place
        self._main = {**self._needed(folder), **settings}
        self._master = _SERVICES.format(port=self.port) + services

    def _needed(self, folder: Path) -> dict[str, str]:
        return {
            "compatibility_level": "3.6",
            "queue_directory": str(self.queue),
            "data_directory": str(self._data),
            "maillog_file": str(self.log),
            "maillog_file_prefixes": str(folder),
            "myhostname": "peer.example.org",
            "mydestination": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "smtp_tls_security_level": "none",
            "in_flow_delay": "0",
            "smtpd_client_event_limit_exceptions": "static:all",
        }

    async def __aenter__(self) -> Postfix:
        for folder in (self.configuration, self.queue, self._data):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        shutil.chown(self._data, "postfix")
        for file in (*Path("/etc/postfix").glob("postfix-files*"), *Path("/etc/postfix").glob("dynamicmaps.cf*")):
            if file.is_file():
                shutil.copy(file, self.configuration)
        main = "".join(f"{name} = {value}\n" for name, value in self._main.items())
        (self.configuration / "main.cf").write_text(main)
        (self.configuration / "master.cf").write_text(self._master)
        await self._do(self._start, START_SECONDS_MAX)
        await until(self._answers, START_SECONDS_MAX, f"Postfix answers on port {self.port}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._do(("postfix", "-c", str(self.configuration), "stop"), STOP_SECONDS_MAX)

    async def _do(self, argv: Sequence[str], seconds: float) -> None:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(seconds):
            out, _ = await process.communicate()
        if process.returncode != 0:
            raise PostfixFailed(f"{' '.join(argv)}: exit {process.returncode}\n{out.decode()}{self._log_end()}")

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        greeting = await reader.readline()
        writer.close()
        return greeting.startswith(b"220")

    def _log_end(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
