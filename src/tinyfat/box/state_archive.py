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
UNPACKED_BYTES_MAX = 4 * STATE_BYTES_MAX  # of all files together, holes included
UNPACKED_TIMES_MAX = 200  # as much as packed, holes aside: sessions in JSON shrink to a tenth
UNPACKED_BYTES_FREE = 64 * 1024**2  # whatever the archive's size
HOLE_BYTES = 64 * 1024  # so many zeros, where they begin at a multiple of it, become a hole again
HEADER_BYTES_MAX = 64 * 1024  # of a long name or other words on a member: tarfile reads them into memory whole
SPARE_BYTES = 512 * 1024**2  # of the disk, that stay free
FOLDER_NAMES_BYTES_MAX = 64 * 1024**2  # of all folders' names together: they are kept while it is judged
DEPTH_MAX = 64  # folders in each other
NAME_BYTES_MAX = 255  # of one part of a name: what Linux takes
PATH_BYTES_MAX = 2048
LINK_BYTES_MAX = 4096  # what a link says
PIECE_BYTES = 1024 * 1024
COMPRESSION = 1  # zlib's: the network between two servers is quicker than more of it
PARTS = ("state", "workspace")
# Made anew by whoever needs it. By its name, directly in `state`.
_REBUILT = frozenset({"cache", "tmp", "log"})
_SQLITE_HEADER = b"SQLite format 3\0"  # sqlite.org/fileformat.html, section 1.3.1


# By tarfile on what is no archive, or one of somebody who wants us to fall.
_DAMAGE = (
    tarfile.TarError,
    zlib.error,
    EOFError,
    sqlite3.Error,
    RecursionError,
    ValueError,
    OverflowError,
    FileExistsError,
)
_WORDS_TYPES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


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
        if isinstance(error, _DAMAGE):
            raise ArchiveRefused(f"the archive is damaged: {error}") from error
        raise
    for part in PARTS:
        old, new = folder / part, fresh / part
        aside = folder / f"{part}.before"
        _clear(aside)
        if os.path.lexists(old):  # a link to nowhere, too
            old.rename(aside)
        if new.exists():
            new.rename(old)
        else:
            old.mkdir(mode=0o700)
        _clear(aside)
    shutil.rmtree(fresh, ignore_errors=True)


def _clear(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


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
    """A tar.gz whose members are all in one of `parts`, into a folder that is empty. It is read through before anything
    is written: what it would take, and where each member would go. Raises OSError, ArchiveRefused, tarfile.TarError,
    zlib.error, EOFError."""
    _judge(archive, into, parts)
    folders: list[tuple[str, int]] = []
    with tarfile.open(archive, "r:gz", tarinfo=_Member) as tar:
        for member in _each(tar):
            _write(tar, member, into)
            if member.isdir():
                folders.append((member.name, member.mode))
    for name, mode in reversed(folders):  # last: a folder may not be writable
        _close(into / name, mode & 0o777)


def _judge(archive: Path, into: Path, parts: Sequence[str]) -> None:
    """Raises ArchiveRefused. Only names of folders are kept: it may have millions of files."""
    packed = archive.stat().st_size
    most = min(UNPACKED_BYTES_MAX, max(UNPACKED_BYTES_FREE, packed * UNPACKED_TIMES_MAX))
    room = shutil.disk_usage(into).free - SPARE_BYTES
    claimed, written, named, folders = 0, 0, 0, set[str]()
    with tarfile.open(archive, "r:gz", tarinfo=_Member) as tar:
        for count, member in enumerate(_each(tar)):
            if count >= MEMBERS_MAX:
                raise ArchiveRefused(f"it has over {MEMBERS_MAX} members")
            _judge_name(member.name, parts)
            _judge_kind(member, folders, parts)
            if not member.issym() and hasattr(tarfile, "data_filter"):  # Python 3.11.4; an absolute link stays one
                tarfile.data_filter(member, str(into))
            named += len(member.name) if member.isdir() else 0
            if named > FOLDER_NAMES_BYTES_MAX:
                raise ArchiveRefused(f"its folders' names are over {FOLDER_NAMES_BYTES_MAX} bytes")
            claimed += member.size + member.offset_data - member.offset  # its headers, too
            if claimed > UNPACKED_BYTES_MAX:
                raise ArchiveRefused(f"unpacked it is over {UNPACKED_BYTES_MAX} bytes")
            for piece in _pieces(tar, member):
                written += 0 if _is_hole(piece) else len(piece)
                if written > min(most, room):
                    raise ArchiveRefused(f"unpacked it is over {min(most, room)} bytes: too many, or too full a disk")


class _Member(tarfile.TarInfo):
    """tarfile reads a long name, or a list of holes, of any size into memory before anybody sees the member."""

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise ArchiveRefused("it has a file with holes that are not written out")
        if self.type == tarfile.XGLTYPE:  # `pack` writes none, and tarfile keeps the words of each to the end
            raise ArchiveRefused("it has words on all members at once")
        words = self.type not in tarfile.SUPPORTED_TYPES or self.type in _WORDS_TYPES
        if self.size < 0 or (words and self.size > HEADER_BYTES_MAX):
            raise ArchiveRefused("it has a header without end")
        return super()._proc_member(tarfile_)  # type: ignore[misc,no-any-return]

    def _proc_gnusparse_10(self, *_: object) -> None:
        """The list of holes is in the content here, as long as it likes."""
        raise ArchiveRefused("it has a file with holes that are not written out")


def _each(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        if member.issparse():
            raise ArchiveRefused("it has a file with holes that are not written out")
        yield member
        tar.members = []  # type: ignore[attr-defined]  # tarfile keeps each one otherwise


def _pieces(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    content = tar.extractfile(member) if member.isreg() else None
    while content is not None and (piece := content.read(HOLE_BYTES)):
        yield piece


def _is_hole(piece: bytes) -> bool:
    return len(piece) == HOLE_BYTES and not piece.strip(b"\0")


def _judge_name(name: str, parts: Sequence[str]) -> None:
    pieces = name.split("/")
    if name.startswith("/") or ".." in pieces:
        raise ArchiveRefused(f"{name!r} leads out of it")
    if pieces[0] not in parts:
        raise ArchiveRefused(f"{name!r} is in none of {', '.join(parts)}")
    encoded = os.fsencode(name)
    if len(pieces) > DEPTH_MAX or len(encoded) > PATH_BYTES_MAX or "\0" in name:
        raise ArchiveRefused(f"{name[:NAME_BYTES_MAX]!r}... is too long or too deep")
    if any(len(piece) > NAME_BYTES_MAX for piece in encoded.split(b"/")):
        raise ArchiveRefused(f"{name[:NAME_BYTES_MAX]!r}... is too long")


def _judge_kind(member: tarfile.TarInfo, folders: set[str], parts: Sequence[str]) -> None:
    """Every member lies in a folder that came before it. What is a link is nobody's parent."""
    name = member.name
    parent = name.rpartition("/")[0]
    if parent and parent not in folders:
        raise ArchiveRefused(f"{name!r} lies in no folder of it: it leads out of it, perhaps through a link")
    if member.isdir():
        folders.add(name)
    elif not parent:
        raise ArchiveRefused(f"{name!r} is no folder")  # a link as the workspace itself
    elif member.issym():
        if not 0 < len(os.fsencode(member.linkname)) <= LINK_BYTES_MAX or "\0" in member.linkname:
            raise ArchiveRefused(f"{name!r} is a link without a place it leads to")
    elif member.islnk():
        _judge_name(member.linkname, parts)
        if member.linkname.rpartition("/")[0] not in folders:
            raise ArchiveRefused(f"{name!r} is a link that leads out of it")
    elif not member.isreg():
        raise ArchiveRefused(f"{name!r} is no file, folder or link")


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path) -> None:
    """Where it goes was judged before; that it goes there through no link, and over nothing, is the kernel's."""
    target = into / member.name
    if member.isdir():
        target.mkdir(mode=0o700, exist_ok=True)
        if target.is_symlink():
            raise ArchiveRefused(f"{member.name!r} is a folder and a link")
    elif member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        source = into / member.linkname
        if source.is_symlink() or not source.is_file():
            raise ArchiveRefused(f"{member.name!r} is another name of what is no file")
        os.link(source, target, follow_symlinks=False)
    else:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for piece in _pieces(tar, member):
                if _is_hole(piece):
                    file.seek(len(piece), os.SEEK_CUR)
                else:
                    file.write(piece)
            file.truncate()
            if file.tell() != member.size:
                raise ArchiveRefused(f"{member.name!r} is cut off")
            os.fchmod(file.fileno(), member.mode & 0o777)
        os.utime(target, (member.mtime, member.mtime))


def _close(folder: Path, mode: int) -> None:
    """chmod(2) follows links; an open folder is itself."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _databases(folder: Path) -> Iterator[Path]:
    """Whatever their names: SQLite's first 16 bytes tell."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if not path.is_symlink() and path.is_file() and _begins_as_sqlite(path):
                yield path


def _begins_as_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER


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
