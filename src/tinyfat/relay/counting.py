"""Anthropic's count_tokens: it costs nothing, so nothing is held. Where no vendor counts, an estimate answers."""

from __future__ import annotations

import json

from tinyfat.relay.answering import JSON, Sink
from tinyfat.relay.calls import Calls
from tinyfat.relay.json_body import RequestRefused
from tinyfat.relay.shapes.messages import Messages
from tinyfat.relay.shapes.surface import estimated
from tinyfat.relay.vendors import COUNT_PATH, Asked

PATH = COUNT_PATH


class CountTokens:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def serve(self, asked: Asked, sink: Sink) -> None:
        """Of a key that opens something. Raises StoreUnavailable, Overloaded."""
        surface = Messages()
        try:
            request = await self._calls.read(surface, asked)
            counted = await self._calls.counted(asked, request, PATH)
        except RequestRefused as refused:
            return await sink.whole(400, JSON, surface.error(400, str(refused)))
        if counted is None:
            counted = json.dumps({"input_tokens": estimated(len(request.raw))}).encode()
        return await sink.whole(200, JSON, counted)
