"""OpenAI's embeddings (API reference: "Embeddings")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tinyfat.domain.usage import Usage
from tinyfat.ports.inference import Target
from tinyfat.relay.json_body import RequestRefused
from tinyfat.relay.shapes import allowed
from tinyfat.relay.shapes.openai_errors import openai_error
from tinyfat.relay.shapes.reported import Count, best, counts
from tinyfat.relay.shapes.sse import ERRORS, USAGES, Fate, StreamReader
from tinyfat.relay.shapes.surface import part
from tinyfat.relay.shapes.weight import NOTHING, Reading

_FIELDS = frozenset(
    ("dimensions", "encoding_format", "input", "model", "prompt_cache_key", "service_tier", "stream", "user")
)


class Embeddings:
    name = "embeddings"
    path = "/v1/embeddings"
    refuses_in_words = False

    listed = ""  # texts, and no conversation: each may fill the model's window, so the bytes alone bound them
    passing = frozenset[str]()

    def read(self, fields: Mapping[str, Any]) -> Reading:
        allowed.only("", fields, _FIELDS)
        if fields.get("stream"):
            raise RequestRefused("embeddings are not streamed")
        allowed.standard_price(fields)
        allowed.whole(fields, "dimensions")
        return Reading(NOTHING, choices=0)

    def output_field(self, target: Target) -> str:
        return ""

    def usage(self, answer: Mapping[str, Any]) -> Usage | None:
        return best(self.counts(answer))

    def counts(self, answer: Mapping[str, Any]) -> list[Count]:
        """All of it is input, also where a vendor names the total alone (Voyage)."""
        found = counts(answer.get("usage")) + counts(part(answer.get("meta"), "billed_units"))
        sums = [max((count.input or 0) + (count.output or 0), count.total) for count in found]
        return [
            replace(count, input=taken, output=0, total=0, reasoning=0)
            for count, taken in zip(found, sums, strict=True)
        ]

    def answers(self, answer: Mapping[str, Any]) -> bool:
        return any(isinstance(answer.get(name), (list, dict)) for name in ("data", "embeddings"))

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

    watched = re.compile(rb"\[DONE\]|" + USAGES + rb"|" + ERRORS, re.MULTILINE)
    marks = (b"[DONE]", b'"usage', b"error")

    def look(self, event: Mapping[str, Any], kind: bytes) -> Fate:
        self.tell("usage", event.get("usage"))
        self.finished = self.finished or kind == b"[DONE]"
        return Fate.PASS

    def text_of(self, event: Mapping[str, Any]) -> int:
        return 0
