"""Anthropic's count_tokens: it costs nothing, so nothing is held. Where no vendor counts, an estimate answers."""

from __future__ import annotations

import json

from tinyfat.relay.calls import JSON, UNKNOWN_KEY_WORDS, Calls, Sink
from tinyfat.relay.request import RequestRefused, read_request
from tinyfat.relay.shapes.messages import Messages
from tinyfat.relay.shapes.surface import estimated
from tinyfat.relay.vendors import Asked

PATH = "/v1/messages/count_tokens"


class CountTokens:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def serve(self, asked: Asked, sink: Sink) -> None:
        """Raises StoreUnavailable, Overloaded."""
        surface = Messages()
        if not await self._calls.known(asked.key_hash):
            return await sink.whole(401, JSON, surface.error(401, UNKNOWN_KEY_WORDS))
        try:
            request = read_request(asked.body)
        except RequestRefused as refused:
            return await sink.whole(400, JSON, surface.error(400, str(refused)))
        counted = await self._calls.counted(asked, request, PATH)
        if counted is None:
            counted = json.dumps({"input_tokens": estimated(len(request.raw))}).encode()
        return await sink.whole(200, JSON, counted)
