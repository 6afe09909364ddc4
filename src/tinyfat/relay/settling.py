"""What a call cost, whenever it ends: the vendor's own count, else ours, marked as such."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tinyfat.domain.usage import Usage
from tinyfat.ports.inference import Target
from tinyfat.ports.usage import Settlement
from tinyfat.relay.shapes.sse import StreamReader
from tinyfat.relay.shapes.surface import Bound, Surface, estimated

# A client hung up on an answer that was not streamed: how much the vendor had produced by then, nobody saw.
UNSEEN_TOKENS_PER_SECOND = 100


class Meter:
    """Of one call. It gives its settlement once."""

    def __init__(self, surface: Surface, call_id: str, size: int, began: float, clock: Callable[[], float]) -> None:
        self._surface, self._call_id, self._size = surface, call_id, size
        self._began, self._clock = began, clock
        self._called: tuple[Target, Bound] | None = None
        self._called_at = began
        self._reader: StreamReader | None = None
        self._body: bytes | None = None
        self._done = False
        self.counted: Settlement | None = None  # as the vendor itself counted

    def calling(self, target: Target, bound: Bound) -> None:
        self._called, self._called_at = (target, bound), self._clock()

    def reading(self, reader: StreamReader) -> None:
        self._reader = reader

    def read(self, body: bytes) -> None:
        self._body = body

    def settled(self, outcome: str) -> Settlement | None:
        """None the second time."""
        if self._done:
            return None
        self._done = True
        latency_ms = round((self._clock() - self._began) * 1000)
        if self._called is None:  # the client went before any vendor was asked
            return Settlement(self._call_id, Usage(0, 0, estimated=True), latency_ms, outcome)
        target, bound = self._called
        usage = self._usage(bound)
        price = target.prices.at(usage.input)
        settlement = Settlement(self._call_id, usage, latency_ms, outcome, target.vendor, target.model, price)
        self.counted = None if usage.estimated else settlement
        return settlement

    def _usage(self, bound: Bound) -> Usage:
        if self._reader is not None:
            counted = self._reader.input_counted
            if self._reader.usage is not None:
                return self._reader.usage
            made = min(estimated(self._reader.text_bytes), bound.output)
            taken = counted or Usage(min(estimated(self._size), bound.input), 0)
            return replace(taken, output=made, reasoning=0, estimated=True)
        if self._body is not None:
            return self._of_whole(self._body, bound)
        unseen = int((self._clock() - self._called_at) * UNSEEN_TOKENS_PER_SECOND)
        return Usage(min(estimated(self._size), bound.input), min(unseen, bound.output), estimated=True)

    def _of_whole(self, body: bytes, bound: Bound) -> Usage:
        answer = _object(body)
        usage = self._surface.usage(answer)
        if usage is not None:
            return usage
        made = estimated(self._surface.text_bytes(answer)) if answer else estimated(len(body))
        return Usage(min(estimated(self._size), bound.input), min(made, bound.output), estimated=True)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}
