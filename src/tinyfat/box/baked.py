"""Node and a runtime as one file: packed where they are installed already, put onto a machine that an image is made of.

So an image of ours holds the same bytes whatever made it, and its maker needs neither npm's servers nor PyPI's. The
machine's side runs as root and writes as the box's user, whose folders these are.
"""

from __future__ import annotations

import http.client
import os
import shutil
import ssl
import tarfile
import urllib.request
import zlib
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from tinyfat.box.become import BecomeFailed, Machine
from tinyfat.box.fetch_box import point
from tinyfat.box.state_archive import ArchiveRefused, sha256_of, unpack
from tinyfat.domain.enrolment import (
    CURRENT,
    NODE_FOLDER,
    ROOT_FOLDER,
    RUNTIME_BYTES_MAX,
    RUNTIME_PATH,
    RUNTIMES_FOLDER,
)

PIECE_BYTES = 1024 * 1024
COMPRESSION = 1  # zlib's: it is unpacked once, and made in a fifth of the time
FETCH_SECONDS_MAX = 60.0  # without a byte; the unit that runs this bounds the whole
_PARTS = tuple(folder.removeprefix(f"{ROOT_FOLDER}/") for folder in (NODE_FOLDER, RUNTIMES_FOLDER))


def pack(sources: Iterable[tuple[str, Path]], file: Path) -> str:
    """Its SHA-256, hex. `sources`: where each is to be (absolute, below ROOT_FOLDER), and what it is now. OSError."""
    with tarfile.open(file, "w:gz", compresslevel=COMPRESSION, format=tarfile.PAX_FORMAT) as tar:
        known: set[Path] = set()
        for target, source in sources:
            inside = Path(os.path.relpath(target, ROOT_FOLDER))
            for parent in reversed(inside.parents[:-1]):
                if parent not in known:
                    tar.addfile(_folder(parent.as_posix()))
                    known.add(parent)
            tar.add(source, inside.as_posix(), filter=_nobodys)
    return sha256_of(file)


def bring(machine: Machine, control_url: str, key: str, wanted: str, authority: str) -> None:
    """Done already where it was done before. `wanted`: its SHA-256; `key`: the machine's; `authority`: PEM of what
    vouches for the control plane, "": the system's. Raises BecomeFailed."""
    runtimes = machine.path(RUNTIMES_FOLDER)
    done = runtimes / f".baked-{wanted}"
    with machine.as_box_user():
        if done.exists():
            return
        file, draft = runtimes / ".baked.tar.gz", runtimes / ".baked.partial"
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            _fetch(f"{control_url}{RUNTIME_PATH}/{wanted}", key, authority, file, wanted)
            unpack(file, draft, _PARTS)
            _place(machine, draft)
            done.touch()
        except (OSError, ArchiveRefused, tarfile.TarError, zlib.error, EOFError, http.client.HTTPException) as error:
            raise BecomeFailed(f"node and the runtime are not here yet ({type(error).__name__}: {error})") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            file.unlink(missing_ok=True)


def _place(machine: Machine, draft: Path) -> None:
    """Each gets its name when it is complete."""
    for part in _PARTS:
        folder = machine.path(f"{ROOT_FOLDER}/{part}")
        for fresh in sorted((draft / part).iterdir()):
            shutil.rmtree(folder / fresh.name, ignore_errors=True)
            fresh.rename(folder / fresh.name)
            if folder == machine.path(NODE_FOLDER):
                point(folder / CURRENT, fresh.name)


def _fetch(url: str, key: str, authority: str, file: Path, wanted: str) -> None:
    if not url.startswith("https://"):
        raise ArchiveRefused(f"{url} is not an https address")
    context = ssl.create_default_context(cadata=authority or None)
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})  # noqa: S310 - https, see above
    digest, left = sha256(), RUNTIME_BYTES_MAX
    with (
        urllib.request.urlopen(request, timeout=FETCH_SECONDS_MAX, context=context) as answer,  # noqa: S310
        file.open("wb") as out,
    ):
        while piece := answer.read(PIECE_BYTES):
            left -= len(piece)
            if left < 0:
                raise ArchiveRefused(f"it is over {RUNTIME_BYTES_MAX} bytes")
            digest.update(piece)
            out.write(piece)
    if digest.hexdigest() != wanted:
        raise ArchiveRefused(f"what came is not {wanted}")


def _folder(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    return member


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
