"""OpenAI's responses (API reference: "Responses", "Responses streaming")."""

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

_ENDS = ("response.completed", "response.incomplete", "response.failed")
_OWN_TOOLS = ("function", "custom", "local_shell", "shell", "apply_patch", None)  # the client runs these itself
_INLINE = ("message", "function_call", "function_call_output", "reasoning", "custom_tool_call",
           "custom_tool_call_output", None)  # fmt: skip


class Responses:
    name = "responses"
    path = "/v1/responses"
    refuses_in_words = True

    def bound(self, request: Mapping[str, Any], size: int, target: Target) -> Bound:
        output = wished(request, "max_output_tokens")
        return Bound(_weight(request).input_bound(size, target), target.output_max if output is None else output)

    def objection(self, request: Mapping[str, Any]) -> str:
        if request.get("background"):
            return "background responses are not offered here: nobody would wait to count what they cost"
        tools = request.get("tools")
        for tool in tools if isinstance(tools, list) else ():
            if part(tool, "type") not in _OWN_TOOLS:
                return f"the tool {str(part(tool, 'type'))[:40]!r} is not offered here: it has a price of its own"
        return priced_otherwise(request)

    def usage(self, answer: Mapping[str, Any]) -> Usage | None:
        return usage_of(answer.get("usage"))

    def text_bytes(self, answer: Mapping[str, Any]) -> int:
        output = answer.get("output")
        return len(json.dumps(output)) if output else 0

    def stream(self, strip_usage: bool) -> StreamReader:
        return _ResponsesStream()

    def refusal(self, words: str, model: str, call_id: str, streamed: bool) -> bytes:
        whole = _refused(words, model, call_id)
        return b"".join(_refused_stream(whole, words)) if streamed else json.dumps(whole).encode()

    def error(self, status: int, message: str) -> bytes:
        return openai_error(status, message)


class _ResponsesStream(StreamReader):
    watched = re.compile(rb'"response\.(?:completed|incomplete|failed)"')
    marks = (b'"response.completed"', b'"response.incomplete"', b'"response.failed"')

    def look(self, event: Mapping[str, Any], kind: bytes) -> Fate:
        if event.get("type") not in _ENDS:
            return Fate.PASS
        self.finished = True
        self.usage = usage_of(part(event.get("response"), "usage"))
        return Fate.LAST

    def text_of(self, event: Mapping[str, Any]) -> int:
        delta = event.get("delta")
        return len(delta.encode()) if isinstance(delta, str) else 0


def usage_of(usage: object) -> Usage | None:
    taken, made = count(part(usage, "input_tokens")), count(part(usage, "output_tokens"))
    if not taken or made is None:
        return None
    cached = count(part(part(usage, "input_tokens_details"), "cached_tokens")) or 0
    reasoning = count(part(part(usage, "output_tokens_details"), "reasoning_tokens")) or 0
    return Usage(taken, made, min(cached, taken), 0, min(reasoning, made))


def _weight(request: Mapping[str, Any]) -> Weight:
    """What the vendor keeps is as long as it likes; of the items, what they say and what tools gave back count."""
    if any(request.get(name) for name in ("previous_response_id", "conversation", "prompt")):
        return UNBOUNDED
    items = request.get("input")
    if any(part(item, "type") not in _INLINE for item in (items if isinstance(items, list) else ())):
        return UNBOUNDED
    return added(_of_piece(piece) for piece in pieces(items, "content", "output"))


def _of_piece(piece: Mapping[str, Any]) -> Weight:
    if any(piece.get(name) for name in ("file_id", "file_url", "file_data")):
        return UNBOUNDED
    return of_address(piece["image_url"]) if piece.get("image_url") is not None else Weight()


def _refused(words: str, model: str, call_id: str) -> dict[str, Any]:
    text = {"type": "output_text", "text": words, "annotations": list[str]()}
    message = {"type": "message", "id": f"msg_{call_id}", "status": "completed", "role": "assistant", "content": [text]}
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {
        "id": f"resp_{call_id}",
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, **details},
    }


def _refused_stream(whole: dict[str, Any], words: str) -> list[bytes]:
    message = whole["output"][0]
    at = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    empty = {"type": "output_text", "text": "", "annotations": list[str]()}
    events: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        ("response.output_item.added", {
            "output_index": 0, "item": {**message, "status": "in_progress", "content": []}}),
        ("response.content_part.added", {**at, "part": empty}),
        ("response.output_text.delta", {**at, "delta": words, "logprobs": []}),
        ("response.output_text.done", {**at, "text": words, "logprobs": []}),
        ("response.content_part.done", {**at, "part": message["content"][0]}),
        ("response.output_item.done", {"output_index": 0, "item": message}),
        ("response.completed", {"response": whole}),
    ]  # fmt: skip
    return [event({"type": kind, "sequence_number": n, **body}, kind) for n, (kind, body) in enumerate(events)]
