"""Puts the box onto a machine that has nothing of ours yet. User-data carries this file as it is: the standard library
alone, Python 3.9 or newer.

    python3 -I fetch_box.py ENROL_JSON CONTROL_CA_PEM BOX_FOLDER

ENROL_JSON names the control plane and the archive's SHA-256; CONTROL_CA_PEM is the one authority that may vouch for the
control plane (empty: the system's). Afterwards BOX_FOLDER/current is a link to BOX_FOLDER/SHA256.

An image of ours has the box already: what fetches and unpacks is imported where that is done, for the imports take
longer than everything else here.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

ARCHIVE_BYTES_MAX = 8 * 1024 * 1024
UNPACKED_BYTES_MAX = 64 * 1024 * 1024
FETCH_SECONDS_MAX = 60.0  # without a byte


class FetchFailed(Exception):
    """The box could not be put here."""


def main(argv: list[str]) -> int:
    enrol_file, ca_file, box_folder = map(Path, argv)
    try:
        wanted = json.loads(enrol_file.read_text("utf-8"))
        put_box(str(wanted["control_url"]), str(wanted["box_sha256"]), ca_file, box_folder)
    except (OSError, ValueError, KeyError, FetchFailed) as error:
        print(f"tinyfat: the box is not here yet ({type(error).__name__}: {error}); it is tried again", file=sys.stderr)
        return 1
    return 0


def put_box(control_url: str, sha256: str, ca_file: Path, box_folder: Path) -> None:
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise FetchFailed(f"box_sha256 {sha256!r} is no SHA-256")
    folder = box_folder / sha256
    if not folder.is_dir():
        import hashlib

        archive = fetch(f"{control_url}/box/archive/{sha256}", ca_file)
        if hashlib.sha256(archive).hexdigest() != sha256:
            raise FetchFailed(f"what {control_url} sent is not the archive {sha256}")
        unpack(archive, folder)
    point(box_folder / "current", sha256)


def fetch(url: str, ca_file: Path) -> bytes:
    import ssl
    import urllib.request

    pem = ca_file.read_text("ascii").strip() if ca_file.exists() else ""
    if not url.startswith("https://"):
        raise FetchFailed(f"{url} is not an https address")
    context = ssl.create_default_context(cadata=pem or None)
    with urllib.request.urlopen(url, timeout=FETCH_SECONDS_MAX, context=context) as answer:  # noqa: S310
        body: bytes = answer.read(ARCHIVE_BYTES_MAX + 1)
    if len(body) > ARCHIVE_BYTES_MAX:
        raise FetchFailed(f"{url} is over {ARCHIVE_BYTES_MAX} bytes")
    return body


def unpack(archive: bytes, folder: Path) -> None:
    """Plain files below `folder`, or nothing: it gets its name when it is complete."""
    import compileall
    import io
    import shutil
    import tarfile

    draft = folder.with_name(folder.name + ".partial")
    shutil.rmtree(draft, ignore_errors=True)
    left = UNPACKED_BYTES_MAX
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            parts = member.name.split("/")
            left -= member.size
            file = tar.extractfile(member) if member.isreg() else None
            if file is None or left < 0 or any(part in ("", ".", "..") for part in parts):
                raise FetchFailed(f"the archive holds {member.name!r}, which has no place in it")
            target = draft.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read())
    compileall.compile_dir(str(draft), quiet=2)  # the box's user may not write here
    os.rename(draft, folder)


def point(link: Path, target: str) -> None:
    if link.is_symlink() and os.readlink(link) == target:
        return
    draft = link.with_name(link.name + ".new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(link)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
