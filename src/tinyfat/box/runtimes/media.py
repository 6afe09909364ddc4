"""Files between a mail and an agent's workspace, both ways.

Out: an agent attaches a file by printing a line `MEDIA:./out/report.pdf`. Such a path is the model's word, and the
model may have read a hostile mail: only regular files inside the workspace are read, bounded in number and size.
In: a file that the runtime cannot take with the question is put under `inbox/` in the workspace, named in the text.
"""

from __future__ import annotations

import errno
import hashlib
import mimetypes
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tinyfat.domain.turns import Attachment

FILES_MAX = 20
BYTES_MAX = 25 * 1024 * 1024  # of all files of one answer together: what mail systems commonly take
FILENAME_CHARS_MAX = 120
PATH_CHARS_MAX = 200  # of one that is told of

_MEDIA_LINE = re.compile(r"[ \t]*MEDIA:[ \t]*(\S[^\r\n]*?)[ \t\r]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_UNSAFE = re.compile(r"[^\w.\- ()+@,=]+")


@dataclass(frozen=True, slots=True)
class Collected:
    attachments: tuple[Attachment, ...]
    refused: Mapping[str, str]  # what was named and not attached, and why, in words for the answer's reader


def split_media_lines(text: str) -> tuple[str, tuple[str, ...]]:
    """The text without its MEDIA: lines, and the paths those lines name."""
    if "MEDIA:" not in text:
        return text, ()
    kept: list[str] = []
    paths: list[str] = []
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:  # such a line in a code block is content
            fence = "" if mark and mark[1].startswith(fence) and not line.strip(" `~\r") else fence
        elif mark:
            fence = mark[1]
        elif match := _MEDIA_LINE.fullmatch(line):
            paths.append(match[1].strip("`\"'"))
            kept.append("")
            continue
        kept.append(line)
    if not paths:
        return text, ()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip(), tuple(paths)


def collect(workspace: Path, paths: Iterable[str], bytes_max: int = BYTES_MAX) -> Collected:
    """Read what an answer attaches. Blocking: run it in a thread."""
    attachments: list[Attachment] = []
    refused: dict[str, str] = {}
    left = bytes_max
    for path in dict.fromkeys(paths):
        try:
            if len(attachments) >= FILES_MAX:
                raise FileRefused(f"it is one of more than {FILES_MAX} files")
            attachment = _read(workspace, path, left)
        except (OSError, ValueError) as error:
            refused[path[:PATH_CHARS_MAX]] = _reason(error)
            continue
        left -= len(attachment.content)
        attachments.append(attachment)
    return Collected(tuple(attachments), refused)


def save_inbox(workspace: Path, turn_id: str, attachments: Sequence[Attachment]) -> tuple[str, ...]:
    """Put files into `inbox/<turn>/` and return their paths, relative to the workspace. Blocking.

    The folder's name comes from the turn, so that a turn put twice writes the same files.
    """
    if not attachments:
        return ()
    folder = workspace / "inbox" / hashlib.sha256(turn_id.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    if not folder.resolve().is_relative_to(workspace.resolve()):
        raise OSError(f"{folder} leads out of the workspace")
    saved = []
    for number, attachment in enumerate(attachments, 1):
        target = folder / f"{number}-{safe_filename(attachment.filename)}"
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(attachment.content)
        saved.append(str(target.relative_to(workspace)))
    return tuple(saved)


def safe_filename(name: str) -> str:
    """A name that is one path component and prints on one line."""
    plain = _UNSAFE.sub("_", name.replace("\\", "/").rsplit("/", 1)[-1]).strip(". ")
    if len(plain) > FILENAME_CHARS_MAX:
        plain = plain[: FILENAME_CHARS_MAX - 20] + plain[-20:]
    return plain or "attachment"


class FileRefused(ValueError):
    """A file is not attached; the text says why, for the answer's reader."""


def _reason(error: Exception) -> str:
    match error:
        case FileRefused():
            return str(error)
        case FileNotFoundError() | NotADirectoryError():
            return "it is not there"
        case IsADirectoryError():
            return "it is a folder"
        case PermissionError():
            return "it cannot be read"
        case OSError(errno=errno.ELOOP):
            return "it is a link"
        case OSError(errno=errno.ENXIO):
            return "it is not a regular file"
        case OSError(errno=errno.ENAMETOOLONG):
            return "its name cannot be used"
        case OSError():
            return "it cannot be read"
        case _:
            return "its name cannot be used"


def _read(workspace: Path, path: str, bytes_max: int) -> Attachment:
    root = workspace.resolve()
    target = (root / _local(path)).resolve()
    if not target.is_relative_to(root):
        raise FileRefused("it is outside the workspace")
    if target.is_dir():
        raise FileRefused("it is a folder")
    with os.fdopen(_open_beneath(root, target.relative_to(root)), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise FileRefused("it is not a regular file")
        if found.st_size > BYTES_MAX:
            raise FileRefused(f"it is larger than {BYTES_MAX // 2**20} MB")
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise FileRefused(f"with it the files are over {BYTES_MAX // 2**20} MB")
    media_type, encoding = mimetypes.guess_type(target.name)
    if media_type is None or encoding is not None:
        media_type = "application/octet-stream"
    return Attachment(safe_filename(target.name), media_type, content)


def _local(path: str) -> str:
    parts = urlsplit(path) if "://" in path else None
    if parts is None:
        return path
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise FileRefused("only files of the workspace can be attached")
    return unquote(parts.path)


def _open_beneath(root: Path, relative: Path) -> int:
    """Open a resolved path component by component, so that a link put there meanwhile is not followed."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for component in relative.parts[:-1]:
            inner = os.open(component, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        # O_NONBLOCK: a pipe put there must not hold us for ever.
        return os.open(relative.parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
