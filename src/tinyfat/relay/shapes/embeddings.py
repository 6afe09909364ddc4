"""OpenAI's embeddings (API reference: "Embeddings")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tinyfat.domain.usage import Usage
from tinyfat.ports.inference import Target
from tinyfat.relay.shapes.openai_errors import openai_error
from tinyfat.relay.shapes.sse import Fate, StreamReader
from tinyfat.relay.shapes.surface import Bound, count, part, priced_otherwise


class Embeddings:
    name = "embeddings"
    path = "/v1/embeddings"
    refuses_in_words = False

    def bound(self, request: Mapping[str, Any], size: int, target: Target) -> Bound:
        return Bound(size, 0)  # a list of texts: each may fill the model's window, so the bytes alone bound them

    def objection(self, request: Mapping[str, Any]) -> str:
        return "embeddings are not streamed" if request.get("stream") else priced_otherwise(request)

    def usage(self, answer: Mapping[str, Any]) -> Usage | None:
        taken = count(part(answer.get("usage"), "prompt_tokens"))
        return Usage(taken, 0) if taken else None

    def text_bytes(self, answer: Mapping[str, Any]) -> int:
        return 0

    def stream(self, strip_usage: bool) -> StreamReader:
        return _NoStream()

    def refusal(self, words: str, model: str, call_id: str, streamed: bool) -> bytes:
        return openai_error(429, words)

    def error(self, status: int, message: str) -> bytes:
        return openai_error(status, message)


class _NoStream(StreamReader):
    """A vendor that streams what nobody asked it to stream: it passes, uncounted."""

    watched = re.compile(rb"\[DONE\]")
    marks = (b"[DONE]",)

    def look(self, event: Mapping[str, Any], kind: bytes) -> Fate:
        return Fate.PASS

    def text_of(self, event: Mapping[str, Any]) -> int:
        return 0
