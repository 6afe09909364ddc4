"""OpenAI's responses (API reference: "Responses", "Responses streaming")."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tinyfat.domain.usage import Usage
from tinyfat.ports.inference import Target
from tinyfat.relay.json_body import RequestRefused
from tinyfat.relay.shapes import allowed
from tinyfat.relay.shapes.chat import kept
from tinyfat.relay.shapes.openai_errors import openai_error
from tinyfat.relay.shapes.reported import Count, best, counts
from tinyfat.relay.shapes.sse import ERRORS, USAGES, Fate, StreamReader, event
from tinyfat.relay.shapes.surface import part, text_within
from tinyfat.relay.shapes.weight import FETCHED, NOTHING, UNBOUNDED, Reading, Weight, of_address, pieces, stored, total

_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_OWN_TOOLS = ("function", "custom", "local_shell", "shell", "apply_patch", None)  # the client runs these itself
_INLINE = frozenset((
    None, "message", "function_call", "function_call_output", "reasoning", "custom_tool_call",
    "custom_tool_call_output", "local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output",
    "apply_patch_call", "apply_patch_call_output",
))  # fmt: skip
_PIECES = frozenset((
    None, "input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text", "input_image", "input_file",
))  # fmt: skip
_TOOL = frozenset(("type", "environment"))
_JUDGED = frozenset((
    "content", "encrypted_content", "file_data", "file_id", "file_url", "id", "image_url", "output", "role", "text",
    "type",
))  # fmt: skip
_OUTPUTS = ("max_output_tokens",)
_PASSING = (
    *_OUTPUTS, "include", "max_tool_calls", "metadata", "model", "parallel_tool_calls", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "service_tier", "store", "stream",
    "stream_options", "temperature", "top_logprobs", "top_p", "user",
)  # fmt: skip
# Refused by name: nobody would wait to count what they cost, or each has a price of its own.
_PRICED_OTHERWISE = (
    "access_programs", "background", "background_options", "context_management", "image", "moderation",
)  # fmt: skip
# The official client's (ResponseCreateParams).
_FIELDS = frozenset((
    *_PASSING, *_PRICED_OTHERWISE, "conversation", "inference_geo", "input", "instructions", "previous_response_id",
    "prompt", "reasoning", "speed", "text", "tool_choice", "tools", "truncation",
))  # fmt: skip


class Responses:
    name = "responses"
    path = "/v1/responses"
    refuses_in_words = True

    listed = "input"
    passing = frozenset(_PASSING)

    def read(self, fields: Mapping[str, Any]) -> Reading:
        allowed.only("", fields, _FIELDS)
        allowed.streaming(fields)
        allowed.standard_price(fields)
        allowed.absent(fields, *_PRICED_OTHERWISE)
        allowed.only("reasoning", _object(fields, "reasoning"), ("effort", "generate_summary", "summary"))
        for tool in allowed.objects(fields, "tools"):
            _tool(tool)
        rest = kept(fields)
        for name in ("previous_response_id", "conversation", "prompt"):
            if fields.get(name):
                rest += stored(name)
        said = fields.get("input")
        items = () if isinstance(said, str) else tuple(_weigh(item) for item in allowed.objects(fields, "input"))
        outputs = tuple((name, most) for name in _OUTPUTS if (most := allowed.whole(fields, name)) is not None)
        allowed.whole(fields, "max_tool_calls")
        return Reading(rest, items, 0, outputs)

    def output_field(self, target: Target) -> str:
        return "max_output_tokens"

    def usage(self, answer: Mapping[str, Any]) -> Usage | None:
        return best(self.counts(answer))

    def counts(self, answer: Mapping[str, Any]) -> list[Count]:
        return counts(answer.get("usage"))

    def answers(self, answer: Mapping[str, Any]) -> bool:
        return isinstance(answer.get("output"), list)

    def text_bytes(self, answer: Mapping[str, Any]) -> int:
        return text_within(answer.get("output"))

    def stream(self, strip_usage: bool) -> StreamReader:
        return _ResponsesStream()

    def refusal(self, words: str, model: str, call_id: str, streamed: bool) -> bytes:
        whole = _refused(words, model, call_id)
        return b"".join(_refused_stream(whole, words)) if streamed else json.dumps(whole).encode()

    def error(self, status: int, message: str) -> bytes:
        return openai_error(status, message)


class _ResponsesStream(StreamReader):
    watched = re.compile(
        rb'"response\.(?:completed|incomplete|failed|cancelled)"|' + USAGES + rb"|" + ERRORS, re.MULTILINE
    )
    marks = (b"omplete", b'response.failed"', b'response.cancelled"', b'"usage', b"error")

    def look(self, event: Mapping[str, Any], kind: bytes) -> Fate:
        self.tell("response", part(event.get("response"), "usage"))
        self.tell("event", event.get("usage"))
        if event.get("type") not in _ENDS:
            return Fate.PASS
        self.finished = self.final = True
        return Fate.LAST

    def text_of(self, event: Mapping[str, Any]) -> int:
        delta = event.get("delta")
        return len(delta.encode(errors="surrogatepass")) if isinstance(delta, str) else 0


def _object(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    if not isinstance(value, Mapping | None):
        raise RequestRefused(f"{name} must be an object")
    return value or {}


def _tool(tool: Mapping[str, Any]) -> None:
    """A shell may run at the vendor: there a container has a price of its own."""
    allowed.one_case("a tool", tool, _TOOL)
    allowed.one_of("the tool", tool.get("type"), _OWN_TOOLS)
    if tool.get("type") == "shell":
        allowed.one_of("the shell's environment", _object(tool, "environment").get("type"), ("local", None))


def _weigh(item: Mapping[str, Any]) -> Weight:
    """Of the items, what they say and what tools gave back counts; of some there is only an id."""
    allowed.one_case("an item", item, _JUDGED)
    kind = item.get("type")
    if kind == "item_reference" or (kind is None and "id" in item and "role" not in item):
        return stored("item_reference")
    allowed.one_of("an item of the type", kind, _INLINE)
    if kind == "reasoning" and not (item.get("encrypted_content") or item.get("content")):
        return stored("a reasoning item without encrypted_content") if item.get("id") else NOTHING
    if isinstance(item.get("content"), str) and "output" not in item:
        return NOTHING
    return total(_of_piece(piece) for piece in (*pieces(item.get("content")), *pieces(item.get("output"))))


def _of_piece(piece: Mapping[str, Any]) -> Weight:
    allowed.one_case("a part of an item", piece, _JUDGED)
    allowed.one_of("a part of an item of the type", piece.get("type"), _PIECES)
    if piece.get("file_id"):
        return stored("file_id")
    if piece.get("file_url"):
        return FETCHED
    if piece.get("file_data"):
        return UNBOUNDED
    return of_address(piece["image_url"]) if piece.get("image_url") is not None else NOTHING


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
