"""The box as one file: what a machine needs of us, and nothing else. The same source gives the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import files
from pathlib import Path

import websockets

import tinyfat

ARCHIVES_KEPT = 5
_SUFFIX = ".tar.gz"
_OURS = ("__init__.py", "domain", "box")
_NOT_SHIPPED = ("__pycache__",)
_COMPILED = (".pyc", ".so", ".pyd", ".c", ".pyi")  # of one Python or processor; or not for running


@dataclass(frozen=True, slots=True)
class BoxArchive:
    """A tar.gz to be unpacked into a folder of the PYTHONPATH."""

    data: bytes = field(repr=False)
    sha256: str  # hex


def box_archive() -> BoxArchive:
    """tinyfat's domain and box, and websockets in pure Python. Takes some 0.2 s: off the event loop."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(_files()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644  # and no time, no owner
            tar.addfile(entry, io.BytesIO(content))
    data = gzip.compress(raw.getvalue(), mtime=0)
    return BoxArchive(data, hashlib.sha256(data).hexdigest())


def kept_archives(folder: Path, now: BoxArchive) -> dict[str, bytes]:
    """By SHA-256, this one and the last that were served before it: a machine that was ordered before an upgrade of
    ours still comes for its own. `folder` is made where it is missing. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / f"{now.sha256}{_SUFFIX}"
    draft = file.with_suffix(".new")
    draft.write_bytes(now.data)
    draft.replace(file)
    newest = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda one: (one == file, one.stat().st_mtime), reverse=True)
    for old in newest[ARCHIVES_KEPT:]:
        old.unlink(missing_ok=True)
    kept = {one.name.removesuffix(_SUFFIX): one.read_bytes() for one in newest[:ARCHIVES_KEPT]}
    return {sha256: data for sha256, data in kept.items() if hashlib.sha256(data).hexdigest() == sha256}


def _files() -> Iterator[tuple[str, bytes]]:
    ours, theirs = Path(tinyfat.__file__).parent, Path(websockets.__file__).parent
    for part in _OURS:
        yield from _below(ours / part, ours.parent)
    yield from _below(theirs, theirs.parent)
    for licence in files("websockets") or ():
        if licence.name == "LICENSE":
            yield f"websockets/{licence.name}", licence.read_binary()


def _below(path: Path, top: Path) -> Iterator[tuple[str, bytes]]:
    for file in [path] if path.is_file() else path.rglob("*"):
        shipped = file.suffix not in _COMPILED and not set(file.parts) & set(_NOT_SHIPPED)
        if file.is_file() and shipped:
            yield file.relative_to(top).as_posix(), file.read_bytes()
