"""OpenAI's chat completions (API reference: "Chat", "Chat streaming")."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tinyfat.domain.usage import Usage
from tinyfat.ports.inference import Target
from tinyfat.relay.shapes.openai_errors import openai_error
from tinyfat.relay.shapes.sse import Fate, StreamReader, event
from tinyfat.relay.shapes.surface import Bound, count, part, priced_otherwise, wished
from tinyfat.relay.shapes.weight import UNBOUNDED, Weight, added, of_address, pieces

CHOICES_MAX = 128  # the vendor's own limit of `n`


class Chat:
    name = "chat"
    path = "/v1/chat/completions"
    refuses_in_words = True

    def bound(self, request: Mapping[str, Any], size: int, target: Target) -> Bound:
        output = wished(request, "max_tokens", "max_completion_tokens")
        choices = count(request.get("n")) or 1
        each = target.output_max if output is None else output
        # What was predicted and not said is paid as output, beside max_tokens ("Predicted outputs").
        predicted = size if request.get("prediction") else 0
        return Bound(_weight(request).input_bound(size, target), (each + predicted) * max(1, choices))

    def objection(self, request: Mapping[str, Any]) -> str:
        choices = request.get("n")
        if choices is not None and not 1 <= (count(choices) or 0) <= CHOICES_MAX:
            return f"n must be a number from 1 to {CHOICES_MAX}"
        spoken = any(piece.get("type") == "input_audio" for piece in pieces(request.get("messages"), "content"))
        if spoken or "audio" in request or "web_search_options" in request:
            return "audio and web search are not offered here: they have another price"
        return priced_otherwise(request)

    def usage(self, answer: Mapping[str, Any]) -> Usage | None:
        return usage_of(answer.get("usage"))

    def text_bytes(self, answer: Mapping[str, Any]) -> int:
        choices = answer.get("choices")
        return sum(_said(part(choice, "message")) for choice in choices) if isinstance(choices, list) else 0

    def stream(self, strip_usage: bool) -> StreamReader:
        return _ChatStream(strip_usage)

    def refusal(self, words: str, model: str, call_id: str, streamed: bool) -> bytes:
        head = {"id": f"chatcmpl-{call_id}", "created": 0, "model": model}
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        if not streamed:
            message = {"role": "assistant", "content": words, "refusal": None}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            return json.dumps({**head, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
        head["object"] = "chat.completion.chunk"
        said = {"index": 0, "delta": {"role": "assistant", "content": words}, "finish_reason": None}
        ended = {"index": 0, "delta": dict[str, str](), "finish_reason": "stop"}
        return event({**head, "choices": [said]}) + event({**head, "choices": [ended]}) + b"data: [DONE]\n\n"

    def error(self, status: int, message: str) -> bytes:
        return openai_error(status, message)


class _ChatStream(StreamReader):
    watched = re.compile(rb'"usage"\s*:\s*\{|\[DONE\]')
    marks = (b"[DONE]", b'"usage"')

    def __init__(self, strip_usage: bool) -> None:
        super().__init__()
        self._strip_usage = strip_usage

    def look(self, event: Mapping[str, Any], kind: bytes) -> Fate:
        if kind == b"[DONE]":
            self.finished = True
            return Fate.LAST
        self.usage = usage_of(event.get("usage")) or self.usage
        return Fate.STRIP if self._strip_usage and event.get("choices") == [] else Fate.PASS

    def text_of(self, event: Mapping[str, Any]) -> int:
        choices = event.get("choices")
        return sum(_said(part(choice, "delta")) for choice in choices) if isinstance(choices, list) else 0


def usage_of(usage: object) -> Usage | None:
    """None where the vendor did not count: an input of nothing is no count."""
    taken, made = count(part(usage, "prompt_tokens")), count(part(usage, "completion_tokens"))
    if not taken or made is None:
        return None
    cached = count(part(part(usage, "prompt_tokens_details"), "cached_tokens")) or 0
    reasoning = count(part(part(usage, "completion_tokens_details"), "reasoning_tokens")) or 0
    return Usage(taken, made, min(cached, taken), 0, min(reasoning, made))


def _said(message: Any) -> int:
    texts = [part(message, name) for name in ("content", "reasoning_content", "reasoning", "refusal")]
    size = sum(len(text.encode()) for text in texts if isinstance(text, str))
    calls = part(message, "tool_calls")
    return size + (len(json.dumps(calls)) if isinstance(calls, list) else 0)


def _weight(request: Mapping[str, Any]) -> Weight:
    return added(_of_piece(piece) for piece in pieces(request.get("messages"), "content"))


def _of_piece(piece: Mapping[str, Any]) -> Weight:
    kind = piece.get("type")
    if kind in ("text", "refusal", None):
        return Weight()
    if kind == "image_url":
        address = piece.get("image_url")
        return of_address(part(address, "url") if isinstance(address, Mapping) else address)
    return UNBOUNDED
