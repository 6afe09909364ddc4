"""An agent's state as one file: what its runtime and it itself have written, packed while nothing of it runs.

OpenClaw's own archive (`openclaw backup create`) leaves out the plugins of its channels and is restored by hand; its
folder copied while the gateway is stopped goes on where it was, so that is what is packed, whatever the runtime is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinyfat.domain.link import STATE_BYTES_MAX

MEMBERS_MAX = 2_000_000
PIECE_BYTES = 1024 * 1024
COMPRESSION = 1  # zlib's: the network between two servers is quicker than more of it
PARTS = ("state", "workspace")
# Made anew by whoever needs it. By its name, directly in `state`.
_REBUILT = frozenset({"cache", "tmp", "log"})


class ArchiveRefused(Exception):
    """This is no whole archive of an agent's state."""


def pack(folder: Path, archive: Path) -> str:
    """Its SHA-256, hex. Links stay links; sockets and the like are left out. Raises OSError, ArchiveRefused."""
    draft = archive.with_suffix(".new")
    with tarfile.open(draft, "w:gz", compresslevel=COMPRESSION, format=tarfile.PAX_FORMAT) as tar:
        for part in PARTS:
            if (folder / part).is_dir():
                tar.add(folder / part, part, filter=_wanted)
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    if draft.stat().st_size > STATE_BYTES_MAX:
        draft.unlink()
        raise ArchiveRefused(f"the state is over {STATE_BYTES_MAX // 1024**3} GiB when packed")
    draft.replace(archive)
    return sha256_of(archive)


def restore(archive: Path, folder: Path) -> None:
    """In the place of what is there: all of it or nothing. Raises OSError, ArchiveRefused."""
    fresh = folder / "moved-in"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    try:
        unpack(archive, fresh, PARTS)
        for database in _databases(fresh):
            _check(database)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(error, tarfile.TarError | zlib.error | EOFError | sqlite3.Error):
            raise ArchiveRefused(f"the archive is damaged: {error}") from error
        raise
    for part in PARTS:
        old, new = folder / part, fresh / part
        aside = folder / f"{part}.before"
        shutil.rmtree(aside, ignore_errors=True)
        if old.exists():
            old.rename(aside)
        if new.exists():
            new.rename(old)
        else:
            old.mkdir(mode=0o700)
        shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(fresh, ignore_errors=True)


def sha256_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    part, _, rest = member.name.partition("/")
    if part == "state" and rest.split("/")[0] in _REBUILT:
        return None
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def unpack(archive: Path, into: Path, parts: Sequence[str]) -> None:
    """A tar.gz whose members are all in one of `parts`. Nothing is written outside, through a link or otherwise. Raises
    OSError, ArchiveRefused, tarfile.TarError, zlib.error, EOFError."""
    root = into.resolve()
    folders: list[tuple[Path, int]] = []
    with tarfile.open(archive, "r:gz") as tar:
        for member in _members(tar, parts):
            target = into / member.name
            if ".." in Path(member.name).parts or Path(member.name).is_absolute():
                raise ArchiveRefused(f"{member.name!r} leads out of it")
            if not target.parent.resolve().is_relative_to(root):
                raise ArchiveRefused(f"{member.name!r} leads out of it through a link")
            _write(tar, member, target, into)
            if member.isdir():
                folders.append((target, member.mode))
    for path, mode in folders:  # last: a folder may not be writable
        path.chmod(mode & 0o777)


def _members(tar: tarfile.TarFile, parts: Sequence[str]) -> Iterator[tarfile.TarInfo]:
    for count, member in enumerate(tar):
        if count >= MEMBERS_MAX:
            raise ArchiveRefused(f"it has over {MEMBERS_MAX} members")
        if member.name.split("/")[0] not in parts:
            raise ArchiveRefused(f"{member.name!r} is in none of {', '.join(parts)}")
        yield member


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, into: Path) -> None:
    if member.isdir():
        target.mkdir(mode=0o700, exist_ok=True)
    elif member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        source = into / member.linkname
        if ".." in Path(member.linkname).parts or not source.resolve().is_relative_to(into.resolve()):
            raise ArchiveRefused(f"{member.name!r} is a link that leads out of it")
        os.link(source, target, follow_symlinks=False)
    elif member.isreg():
        content = tar.extractfile(member)
        assert content is not None
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(content, file, PIECE_BYTES)
            os.fchmod(file.fileno(), member.mode & 0o777)
        os.utime(target, (member.mtime, member.mtime))
    else:
        raise ArchiveRefused(f"{member.name!r} is no file, folder or link")


def _databases(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*.sqlite"):
        if path.is_file() and not path.is_symlink():
            yield path


def _check(database: Path) -> None:
    """The runtime's SQLite may be newer than ours: what ours does not know (a function in a CHECK, a kind of table) is
    no damage. Raises ArchiveRefused, sqlite3.Error."""
    connection = sqlite3.connect(database)
    try:
        connection.execute("pragma ignore_check_constraints = on")
        row = connection.execute("pragma quick_check").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:  # it could not even be read
            raise
        return
    finally:
        connection.close()
    if row != ("ok",):
        raise ArchiveRefused(f"the database {database.name} is damaged: {row[0] if row else 'no word'}")
