"""What goes over a link in pieces, on disk meanwhile: a link that hangs holds no memory."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from typing import IO

from tinyfat.domain.link import ANSWER_CHARS_MAX, ANSWER_FILES_BYTES_MAX, PIECE_BYTES_MAX, FrameRefused, Piece

ANSWER_BYTES_MAX = ANSWER_FILES_BYTES_MAX + 4 * ANSWER_CHARS_MAX  # UTF-8 has at most four bytes a character


class Spool:
    """A file without a name: gone when it is closed, or we are killed. Its work is done in threads. Raises OSError."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._turn_id = ""
        self.size = 0

    async def add(self, piece: Piece) -> None:
        """Raises FrameRefused over ANSWER_BYTES_MAX."""
        if piece.turn_id != self._turn_id:
            self.close()
            self._turn_id = piece.turn_id
        self.size += len(piece.content)
        if self.size > ANSWER_BYTES_MAX:
            raise FrameRefused(f"an answer of over {ANSWER_BYTES_MAX} bytes")
        await self.write([piece.content])

    async def write(self, contents: Sequence[bytes]) -> None:
        await asyncio.to_thread(self._write, contents)

    async def taken(self, turn_id: str) -> bytes:
        """What came of this turn; from now on there is nothing here."""
        file = self._file if turn_id == self._turn_id else None
        try:
            return b"" if file is None else await asyncio.to_thread(_all_of, file)
        finally:
            self.close()

    async def pieces(self, turn_id: str) -> AsyncIterator[Piece]:
        file = self._file
        if file is None:
            return
        await asyncio.to_thread(file.seek, 0)
        while content := await asyncio.to_thread(file.read, PIECE_BYTES_MAX):
            yield Piece(turn_id, content)

    def close(self) -> None:
        file, self._file, self._turn_id, self.size = self._file, None, "", 0
        if file is not None:
            file.close()

    def _write(self, contents: Sequence[bytes]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the answer takes
        for content in contents:
            self._file.write(content)


def _all_of(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
