"""The log: into a file that cannot grow without end, and to the control plane while it is there. Secrets are hidden."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from tinyfat.domain.link import LOG_LINE_CHARS_MAX, LOG_LINES_MAX, LogLine

FILE_BYTES_MAX = 5 * 1024 * 1024  # of each of the two
BATCH_CHARS_MAX = 64 * 1024  # of the lines of one frame, as JSON; one line is always taken
LINE_CHARS = 80  # of a line's frame, besides its text
RING_LINES_MAX = 1000  # kept for the control plane while it is away
SECRET_CHARS_MIN = 6  # what is shorter is a word, and hiding it would hide the log

BOX = "box"
RUNTIME = "runtime"


class Logbook:
    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._secrets: set[str] = set()
        self._ring: deque[LogLine] = deque()
        self._lost = 0
        self._fd: int | None = None
        self._size = 0
        self.on_line: Callable[[], None] = lambda: None

    def hide(self, secrets: Iterable[str]) -> None:
        """From now on these are written as ***."""
        self._secrets.update(secret for secret in secrets if len(secret) >= SECRET_CHARS_MIN)

    def clean(self, text: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def box(self, text: str) -> None:
        """A line of the box's own."""
        self.write(BOX, text)

    def write(self, source: str, text: str) -> None:
        line = LogLine(self._now(), source, self.clean(text)[:LOG_LINE_CHARS_MAX])
        self._to_file(line)
        if len(self._ring) >= RING_LINES_MAX:
            self._ring.popleft()
            self._lost += 1
        self._ring.append(line)
        self.on_line()

    def batch(self) -> tuple[LogLine, ...]:
        """The oldest lines not yet sent, with a word on those that were lost; empty when all are sent."""
        lines = self._next_lines()
        if not self._lost or not lines:
            return lines
        words = f"{self._lost} lines before this one were not kept for the control plane; box.log may have them."
        return (LogLine(lines[0].at, BOX, words), *lines)

    def _next_lines(self) -> tuple[LogLine, ...]:
        lines: list[LogLine] = []
        chars = 0
        for line in self._ring:
            chars += LINE_CHARS + len(json.dumps(line.text))
            if len(lines) == LOG_LINES_MAX - 1 or (lines and chars > BATCH_CHARS_MAX):
                break
            lines.append(line)
        return tuple(lines)

    def sent(self, lines: tuple[LogLine, ...], lost_before: int) -> None:
        """These reached the socket: they are not sent again. `lost_before`: `lost` when the batch was made."""
        self._lost -= min(lost_before, self._lost)
        sent = set(map(id, lines))
        while self._ring and id(self._ring[0]) in sent:
            self._ring.popleft()

    @property
    def lost(self) -> int:
        return self._lost

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _to_file(self, line: LogLine) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(line.at))
        record = f"{stamp}.{int(line.at % 1 * 1000):03d}Z {line.source:7} {line.text}\n".encode("utf-8", "replace")
        try:
            if self._fd is None or self._size + len(record) > FILE_BYTES_MAX:
                self._turn_over(len(record))
            if self._fd is not None:
                self._size += os.write(self._fd, record)
        except OSError:
            # A full disk or a folder that is gone must not end the box: the control plane still gets the line.
            self.close()

    def _turn_over(self, coming_bytes: int) -> None:
        self.close()
        if self._path.exists() and self._path.stat().st_size + coming_bytes > FILE_BYTES_MAX:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._fd).st_size
