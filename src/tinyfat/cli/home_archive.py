"""A home and its database in one file, and back: what a control plane needs to be itself again.

A tar: `manifest.json`, `database.dump`, and the home's files under `home/`. While TinyFat runs the agents' machines of
this host write their folders, so they are in it only where it is stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyfat import __version__
from tinyfat.cli.client import CommandFailed, WrongUse
from tinyfat.cli.home import Home, HomeRefused
from tinyfat.settings import Settings
from tinyfat.wiring import DumpFailed, EmbeddedPostgres, PostgresRefused, dump, restore

MANIFEST, DATABASE, HOME = "manifest.json", "database.dump", "home"
LEFT_OUT = frozenset(("postgres", "postgres.log", "lock", "up.json"))
WHILE_STOPPED = frozenset(("machines", "boxes"))
PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Archive:
    file: Path
    bytes: int
    machines: bool  # the folders of this host's machines are in it


async def back_up(settings: Settings, file: Path) -> Archive:
    """A new file, readable by its owner alone, seen to be whole. Raises CommandFailed; then `file` is not there."""
    if not settings.home.is_dir():
        raise WrongUse(f"There is no home at {settings.home}.")
    if file.exists():
        raise WrongUse(f"{file} is there already; choose another name.")
    home = Home(settings.home)
    running = home.running() is not None
    draft = file.with_name(file.name + ".part")
    try:
        if not running:
            home.take()
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        with tempfile.TemporaryDirectory(prefix="tinyfat-backup-") as folder:
            dumped = Path(folder) / DATABASE
            await _dump(settings, dumped, running)
            _write(settings, draft, dumped, running)
        _check(draft)
        os.link(draft, file)  # fails where another file came meanwhile
        _sync(file.parent)
    except (OSError, HomeRefused, DumpFailed, PostgresRefused) as error:
        raise CommandFailed(f"Nothing was backed up: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return Archive(file, file.stat().st_size, not running)


async def bring_back(settings: Settings, file: Path) -> Archive:
    """Into a home that is not there yet or empty. Raises CommandFailed; then the home is as it was."""
    if settings.home.exists() and any(settings.home.iterdir()):
        raise WrongUse(f"{settings.home} is not empty: a backup goes into a home that is not there yet (TINYFAT_HOME).")
    draft = settings.home.with_name(settings.home.name + ".restoring")
    try:
        manifest = _check(file)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700, parents=True)
        with tarfile.open(file) as tar:
            # From Python 3.14 on links that lead out of the folder would be refused (PEP 706): agents make such.
            tar.extraction_filter = lambda member, path: member
            for member in tar:
                _extract(tar, member, draft)
        await _restore(settings, draft)
        (draft / DATABASE).unlink()
        if settings.home.exists():
            settings.home.rmdir()
        draft.rename(settings.home)
        _sync(settings.home.parent)
    except (OSError, DumpFailed, PostgresRefused, tarfile.TarError) as error:
        raise CommandFailed(f"Nothing was restored: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Archive(file, file.stat().st_size, bool(manifest["machines"]))


async def _dump(settings: Settings, file: Path, running: bool) -> None:
    postgres = None if settings.database_url else EmbeddedPostgres(settings.home)
    if postgres is None or running:
        await dump(settings.database_url or EmbeddedPostgres(settings.home).url, file)
        return
    await postgres.start()
    try:
        await dump(postgres.url, file)
    finally:
        await postgres.stop()


async def _restore(settings: Settings, draft: Path) -> None:
    if settings.database_url:
        await restore(settings.database_url, draft / DATABASE)
        return
    postgres = EmbeddedPostgres(draft)
    await postgres.start()
    try:
        await restore(postgres.url, draft / DATABASE)
    finally:
        await postgres.stop()


def _write(settings: Settings, draft: Path, dumped: Path, running: bool) -> None:
    manifest = {"tinyfat": __version__, "machines": not running, "sha256": _digest(dumped)}
    with draft.open("wb") as raw, tarfile.open(fileobj=raw, mode="w") as tar:
        content = json.dumps(manifest).encode()
        head = tarfile.TarInfo(MANIFEST)
        head.size = len(content)
        tar.addfile(head, io.BytesIO(content))
        tar.add(dumped, DATABASE)
        for name in sorted(_kept(settings.home, running)):
            tar.add(settings.home / name, f"{HOME}/{name}", filter=_plain)
    descriptor = os.open(draft, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _kept(home: Path, running: bool) -> Iterator[str]:
    for entry in home.iterdir():
        left_out = entry.name in LEFT_OUT or entry.name.startswith("postgres.making-")
        if not left_out and not (running and entry.name in WHILE_STOPPED):
            yield entry.name


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Files, folders and links; no pipes or devices, which nothing of ours needs."""
    return member if member.isfile() or member.isdir() or member.issym() or member.islnk() else None


def _check(file: Path) -> dict[str, Any]:
    """The manifest of an archive whose database is what it says. Raises DumpFailed, OSError, tarfile.TarError."""
    with tarfile.open(file) as tar:
        first, second = tar.next(), tar.next()
        if first is None or second is None or (first.name, second.name) != (MANIFEST, DATABASE):
            raise DumpFailed(f"{file} is no backup of a home.")
        told, database = tar.extractfile(first), tar.extractfile(second)
        assert told is not None and database is not None
        manifest: dict[str, Any] = json.loads(told.read(PIECE_BYTES))
        digest = hashlib.sha256()
        while piece := database.read(PIECE_BYTES):
            digest.update(piece)
        for _ in tar:  # to its end: one that was cut says so
            pass
    if digest.hexdigest() != manifest["sha256"]:
        raise DumpFailed(f"The database in {file} is not what was backed up.")
    return manifest


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path) -> None:
    parts = Path(member.name).parts
    if member.name == DATABASE:
        tar.extract(member, into)
    elif parts[:1] == (HOME,) and ".." not in parts and len(parts) > 1 and _plain(member):
        member.name = str(Path(*parts[1:]))
        if member.islnk():
            member.linkname = str(Path(*Path(member.linkname).parts[1:]))
        tar.extract(member, into)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
