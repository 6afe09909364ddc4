"""Ends a folder that a hostile box has filled: closed to us, or nested deeper than Python's own removal can go."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

SECONDS_MAX = 300.0  # of each program


def remove(folder: Path) -> None:
    """No link in it is followed. What cannot be removed stays: the caller looks again. For a thread."""
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    for argv in (("chmod", "-R", "u+rwX"), ("rm", "-rf")):
        if folder.exists():
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run([*argv, "--", str(folder)], capture_output=True, timeout=SECONDS_MAX, check=False)
