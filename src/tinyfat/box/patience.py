"""How long a start of the runtime may take on this machine, by what its earlier starts took: a slow or busy machine is
given more each time it was too slow, and less again once it is quick."""

from __future__ import annotations

import json
from pathlib import Path

from tinyfat.box.private_file import write_private

STARTS_KEPT = 8
TIMES = 3.0  # as long as the longest of the last starts
AFTER_A_KILL = 2.0  # times what was not enough


class Patience:
    def __init__(self, file: Path, first: float, longest: float) -> None:
        """Seconds. `first`: the least that is ever given."""
        self._file = file
        self._first, self._longest = first, longest
        self._starts, self._not_enough = self._read()

    def seconds(self) -> float:
        took = TIMES * max(self._starts, default=0.0)
        return min(self._longest, max(self._first, took, AFTER_A_KILL * self._not_enough))

    def was_ready(self, seconds: float) -> None:
        self._starts = [*self._starts, seconds][-STARTS_KEPT:]
        self._not_enough = 0.0
        self._write()

    def was_killed(self, seconds: float) -> None:
        """It was given so long, and was not ready."""
        self._not_enough = seconds
        self._write()

    def _read(self) -> tuple[list[float], float]:
        try:
            body = json.loads(self._file.read_text("utf-8"))
            starts = [float(one) for one in body["starts"][-STARTS_KEPT:]]
            not_enough = float(body["not_enough"])
            if all(0 <= one <= self._longest for one in (*starts, not_enough)):
                return starts, not_enough
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return [], 0.0

    def _write(self) -> None:
        try:
            write_private(self._file, json.dumps({"starts": self._starts, "not_enough": self._not_enough}))
        except OSError:
            return  # a full disk: it is known until this box ends
