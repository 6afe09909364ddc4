"""Small bodies are read on the loop, in milliseconds; of large ones another process reads, and the loop waits for no
byte of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from tinyfat.engine.workers import WorkerBusy, WorkerFailed
from tinyfat.relay.batches import Overloaded
from tinyfat.relay.json_body import RequestRefused, light
from tinyfat.relay.request import ModelRequest, read_body, read_request
from tinyfat.relay.shapes.surface import Surface
from tinyfat.relay.vendors import Asked

READ_SECONDS_MAX = 30.0  # in another process: millions of messages on a busy machine
ANSWER_BYTES_MAX = 8 * 1024 * 1024  # of what another process makes of a body: it is a hundredth


class Readers(Protocol):
    """engine.workers.Workers."""

    async def run(
        self, function: Callable[..., Any], *arguments: object, size: int, whose: str = ..., seconds: float = ...,
        answer_max: int = ...,
    ) -> Any: ...  # fmt: skip


class Reading:
    def __init__(self, readers: Readers | None) -> None:
        self._readers = readers

    async def read(self, surface: Surface, asked: Asked) -> ModelRequest:
        """Raises RequestRefused, and Overloaded where too many bodies are being read."""
        raw = asked.body
        if self._readers is None or light(raw):
            return read_request(raw, surface)
        try:
            read: ModelRequest = await self._readers.run(
                read_body, surface.name, raw, size=len(raw), whose=asked.key_hash.hex(), seconds=READ_SECONDS_MAX,
                answer_max=ANSWER_BYTES_MAX,
            )  # fmt: skip
        except WorkerBusy as error:
            raise Overloaded(f"a request is not read: {error}") from None
        except WorkerFailed:
            raise RequestRefused("the body is too much to read") from None
        return replace(read, raw=raw)
