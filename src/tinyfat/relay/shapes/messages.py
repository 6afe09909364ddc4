"""Anthropic's messages (API reference: "Messages", "Streaming messages", "Errors")."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tinyfat.domain.usage import Usage
from tinyfat.ports.inference import Target
from tinyfat.relay.shapes.sse import Fate, StreamReader, event
from tinyfat.relay.shapes.surface import Bound, count, part, priced_otherwise, wished
from tinyfat.relay.shapes.weight import UNBOUNDED, Weight, added, pieces

_ERRORS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
TOOLS_TOKENS_MAX = 1_000  # what the vendor says of tools by itself, where there are some
TOOL_TOKENS_MAX = 2_000  # what it says of each that it describes itself
_VENDORS_TOOLS = ("web_search", "web_fetch", "code_execution")  # each has a price of its own, or fetches input


class Messages:
    name = "messages"
    path = "/v1/messages"
    refuses_in_words = True

    def bound(self, request: Mapping[str, Any], size: int, target: Target) -> Bound:
        output = wished(request, "max_tokens")
        taken = _weight(request).input_bound(size, target, _added_by_tools(request))
        return Bound(taken, target.output_max if output is None else output, _asks_an_hour(request))

    def objection(self, request: Mapping[str, Any]) -> str:
        tools = request.get("tools")
        for tool in tools if isinstance(tools, list) else ():
            kind = part(tool, "type")
            if isinstance(kind, str) and kind.startswith(_VENDORS_TOOLS):
                return f"the tool {kind[:40]!r} is not offered here: it has a price of its own"
        if request.get("mcp_servers") or request.get("container") or request.get("fallbacks"):
            return "mcp_servers, containers and fallbacks are not offered here: they have a price of their own"
        return priced_otherwise(request)

    def usage(self, answer: Mapping[str, Any]) -> Usage | None:
        return usage_of(answer.get("usage"))

    def text_bytes(self, answer: Mapping[str, Any]) -> int:
        content = answer.get("content")
        return len(json.dumps(content)) if content else 0

    def stream(self, strip_usage: bool) -> StreamReader:
        return _MessagesStream()

    def refusal(self, words: str, model: str, call_id: str, streamed: bool) -> bytes:
        head = {"id": f"msg_{call_id}", "type": "message", "role": "assistant", "model": model}
        usage = {"input_tokens": 0, "output_tokens": 0}
        if not streamed:
            content = [{"type": "text", "text": words}]
            ended = {"stop_reason": "end_turn", "stop_sequence": None, "usage": usage}
            return json.dumps({**head, "content": content, **ended}).encode()
        begun: dict[str, Any] = {**head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        events: list[tuple[str, dict[str, Any]]] = [
            ("message_start", {"message": begun}),
            ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
            ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": words}}),
            ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage}),
            ("message_stop", {}),
        ]
        return b"".join(event({"type": kind, **body}, kind) for kind, body in events)

    def error(self, status: int, message: str) -> bytes:
        kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()


class _MessagesStream(StreamReader):
    watched = re.compile(rb'"message_(?:start|delta|stop)"')
    marks = (b'"message_',)

    def __init__(self) -> None:
        super().__init__()
        self._counted: dict[str, Any] = {}  # the vendor's counts so far

    def look(self, event: Mapping[str, Any], kind: bytes) -> Fate:
        match event.get("type"):
            case "message_start":
                self._count_in(part(event.get("message"), "usage"))
            case "message_delta":
                self._count_in(event.get("usage"))
                if count(part(event.get("usage"), "output_tokens")) is not None:
                    self.usage = usage_of(self._counted)
            case "message_stop":
                self.finished = True
                return Fate.LAST
        return Fate.PASS

    def _count_in(self, usage: object) -> None:
        """Cumulative: what is named later replaces what was named before, and what is not named stands."""
        if isinstance(usage, Mapping):
            self._counted |= {name: value for name, value in usage.items() if value is not None}

    @property
    def input_counted(self) -> Usage | None:
        return usage_of(self._counted)

    def text_of(self, event: Mapping[str, Any]) -> int:
        delta = event.get("delta")
        texts = [part(delta, name) for name in ("text", "partial_json", "thinking")]
        return sum(len(text.encode()) for text in texts if isinstance(text, str))


def usage_of(usage: object) -> Usage | None:
    """This vendor counts what its cache took apart from the input; our `input` is all of it."""
    fresh, made = count(part(usage, "input_tokens")), count(part(usage, "output_tokens"))
    if fresh is None or made is None:
        return None
    cached = count(part(usage, "cache_read_input_tokens")) or 0
    written = count(part(usage, "cache_creation_input_tokens")) or 0
    hour = count(part(part(usage, "cache_creation"), "ephemeral_1h_input_tokens")) or 0
    taken = fresh + cached + written
    return Usage(taken, made, cached, written, cache_written_1h=min(hour, written)) if taken else None


def _asks_an_hour(request: Mapping[str, Any]) -> bool:
    """Is there a `cache_control` with "ttl": "1h", wherever it is? The vendor knows no other place for it than one of
    the request's own objects, but those are many."""
    waiting: list[object] = [request]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            if part(value.get("cache_control"), "ttl") == "1h":
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


def _weight(request: Mapping[str, Any]) -> Weight:
    """Tool results and the sources of documents hold pieces, too."""
    said = (*pieces(request.get("messages"), "content", "source"), *pieces(request.get("system"), "source"))
    return added(_of_piece(piece) for piece in said)


def _of_piece(piece: Mapping[str, Any]) -> Weight:
    match part(piece.get("source"), "type"):
        case None | "text" | "content":
            return Weight()
        case "base64" if piece.get("type") == "image":
            return Weight(images=1)
    return UNBOUNDED


def _added_by_tools(request: Mapping[str, Any]) -> int:
    """Tokens: with tools the vendor says more to the model than stands in the request ("Tool use: pricing")."""
    tools = request.get("tools")
    if not isinstance(tools, list) or not tools:
        return 0
    own = sum(part(tool, "type") not in (None, "custom") for tool in tools)
    return TOOLS_TOKENS_MAX + own * TOOL_TOKENS_MAX
