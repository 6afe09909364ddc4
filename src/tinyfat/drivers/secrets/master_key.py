"""The master keys in a file that only its owner may read: made on first use, one line a version, the newest first."""

from __future__ import annotations

import os
from pathlib import Path

from tinyfat.drivers.secrets.envelope import MasterKeyRefused, new_master_keys

FILE_CHARS_MAX = 20_000


def kept_master_keys(file: Path) -> str:
    """Raises MasterKeyRefused where the file cannot be read or others may read it."""
    if not file.exists():
        _write(file, new_master_keys(""), first=True)
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise MasterKeyRefused(f"{file} cannot be read: {type(error).__name__}.") from None
    if mode & 0o077:
        raise MasterKeyRefused(f"{file} may be read by others: `chmod 600 {file}`, and rotate the key.")
    if len(text) > FILE_CHARS_MAX:
        raise MasterKeyRefused(f"{file} is no list of master keys: it is too long.")
    return text


def rotate_master_keys(file: Path) -> str:
    """A new version before the old ones, which stay until every secret was wrapped anew (store/byok `rewrap`)."""
    rotated = new_master_keys(kept_master_keys(file))
    _write(file, rotated, first=False)
    return rotated


def _write(file: Path, text: str, first: bool) -> None:
    """On disk before it is used: a key that a power cut forgets has sealed secrets for ever. Two processes that both
    make the first one end up with the same: `link` does not replace."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(text + "\n")
        out.flush()
        os.fsync(handle)
    if first:
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    else:
        draft.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
