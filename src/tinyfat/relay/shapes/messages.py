"""Anthropic's messages (API reference: "Messages", "Streaming messages", "Errors")."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tinyfat.domain.usage import Usage
from tinyfat.ports.inference import Target
from tinyfat.relay.json_body import RequestRefused
from tinyfat.relay.shapes import allowed
from tinyfat.relay.shapes.reported import Count, best, counts, tokens
from tinyfat.relay.shapes.sse import ERRORS, USAGES, Fate, StreamReader, event
from tinyfat.relay.shapes.surface import part, text_within
from tinyfat.relay.shapes.weight import FETCHED, NOTHING, UNBOUNDED, Reading, Weight, pieces, stored, total

_ERRORS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
TOOLS_TOKENS_MAX = 1_000  # what the vendor says of tools by itself, where there are some
TOOL_TOKENS_MAX = 2_000  # what it says of each that it describes itself
_PASSING = (
    "cache_control", "max_tokens", "metadata", "model", "service_tier", "speed", "stop_sequences", "stream",
    "temperature", "top_k", "top_p",
)  # fmt: skip
# Refused by name: each has a price of its own, or bills another than the account.
_PRICED_OTHERWISE = (
    "billing_policy", "compaction", "fallback_credit_token", "fallbacks", "mcp_servers", "thread", "user_profile_id",
    "workspace_id",
)  # fmt: skip
# The official client's (MessageCreateParams, and of the beta what costs no more).
_FIELDS = frozenset((
    *_PASSING, *_PRICED_OTHERWISE, "container", "context_management", "diagnostics", "inference_geo", "messages",
    "output_config", "output_format", "stream_options", "system", "thinking", "tool_choice", "tools",
))  # fmt: skip
_EDITS = ("clear_tool_uses_20250919", "clear_thinking_20251015")
_TOOLS = frozenset((  # the client runs these itself
    None, "custom", "bash_20241022", "bash_20250124", "text_editor_20241022", "text_editor_20250124",
    "text_editor_20250429", "text_editor_20250728", "computer_20241022", "computer_20250124", "computer_20251124",
    "memory_20250818",
))  # fmt: skip
_PIECES = frozenset((
    None, "text", "image", "document", "search_result", "thinking", "redacted_thinking", "tool_use", "tool_result",
    "base64", "content", "url", "file",  # the sources of documents
))  # fmt: skip
_TEXT = frozenset(("type", "text"))
_TOOL = frozenset(("type", "name", "allowed_callers"))
_JUDGED = frozenset(("content", "data", "file_id", "role", "source", "text", "type", "url"))


class Messages:
    name = "messages"
    path = "/v1/messages"
    refuses_in_words = True

    listed = "messages"
    passing = frozenset(_PASSING)

    def read(self, fields: Mapping[str, Any]) -> Reading:
        allowed.only("", fields, _FIELDS)
        allowed.streaming(fields)
        allowed.standard_price(fields)
        allowed.absent(fields, *_PRICED_OTHERWISE)
        tools = allowed.objects(fields, "tools")
        _edits(fields.get("context_management"))
        rest = total(_kept(thing) for thing in (fields, *tools))
        if not isinstance(fields.get("system"), str):
            rest += _of_pieces(allowed.objects(fields, "system"))
        if fields.get("container"):
            rest += stored("container")
        items = tuple(_weigh(message) for message in allowed.objects(fields, "messages"))
        outputs = tuple((name, most) for name in ("max_tokens",) if (most := allowed.whole(fields, name)) is not None)
        thinking = _thinking(fields.get("thinking"))
        return Reading(rest, items, _tools(tools), outputs, thinking=thinking)

    def output_field(self, target: Target) -> str:
        return "max_tokens"

    def usage(self, answer: Mapping[str, Any]) -> Usage | None:
        return best(self.counts(answer))

    def counts(self, answer: Mapping[str, Any]) -> list[Count]:
        """This vendor counts what its cache took apart from the input; our `input` is all of it."""
        return counts(answer.get("usage"), cache_beside=True)

    def answers(self, answer: Mapping[str, Any]) -> bool:
        return isinstance(answer.get("content"), list)

    def text_bytes(self, answer: Mapping[str, Any]) -> int:
        return text_within(answer.get("content"))

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
    watched = re.compile(rb'"message_(?:start|delta|stop)"|' + USAGES + rb"|" + ERRORS, re.MULTILINE)
    marks = (b'"message_', b'"usage', b"error")
    cache_beside = True

    def __init__(self) -> None:
        super().__init__()
        self._counted: dict[str, Any] = {}  # the vendor's counts so far
        self._output_told = False

    def look(self, event: Mapping[str, Any], kind: bytes) -> Fate:
        match event.get("type"):
            case "message_start":
                self._count_in(part(event.get("message"), "usage"))
            case "message_delta":
                usage = event.get("usage")
                self._count_in(usage)
                if tokens(part(usage, "output_tokens")) is not None:
                    self._output_told = True
                    self.final = bool(part(event.get("delta"), "stop_reason"))  # there may be several
            case "message_stop":
                self._count_in(event.get("usage"))
                self.tell("metrics", event.get("amazon-bedrock-invocationMetrics"), self.cache_beside)
                self.finished = True
                return Fate.LAST
            case _:
                self.tell("event", event.get("usage"), self.cache_beside)
        return Fate.PASS

    def _said_more(self) -> bool:
        return False  # these are sums, by the vendor's own words

    def _count_in(self, usage: object) -> None:
        """Cumulative: what is named later replaces what was named before, and what is not named stands."""
        if isinstance(usage, Mapping):
            self._counted |= {name: value for name, value in usage.items() if value is not None}
            self.tell("message", self._counted, self.cache_beside)

    @property
    def usage(self) -> Usage | None:
        return super().usage if self._output_told else None

    @property
    def input_counted(self) -> Usage | None:
        """Also before it has said how much it produced."""
        return super().usage

    def text_of(self, event: Mapping[str, Any]) -> int:
        delta, block = event.get("delta"), event.get("content_block")
        texts = [part(one, name) for one in (delta, block) for name in ("text", "partial_json", "thinking", "data")]
        size = sum(len(text.encode(errors="surrogatepass")) for text in texts if isinstance(text, str))
        given = part(block, "input")
        return size + (len(json.dumps(given)) if given else 0)


def _kept(thing: Mapping[str, Any]) -> Weight:
    """By its `cache_control`, which messages' parts, tools and the request itself may have."""
    return Weight(hour=True) if part(thing.get("cache_control"), "ttl") == "1h" else NOTHING


def _weigh(message: Mapping[str, Any]) -> Weight:
    """Tool results and the sources of documents hold pieces, too."""
    allowed.one_case("a message", message, _JUDGED)
    if isinstance(message.get("content"), str):
        return _kept(message)
    return _of_pieces(message.get("content")) + _kept(message)


def _of_pieces(content: object) -> Weight:
    return total(_of_piece(piece) for piece in pieces(content, "content", "source"))


def _of_piece(piece: Mapping[str, Any]) -> Weight:
    if piece.keys() == _TEXT and piece["type"] == "text":
        return NOTHING
    allowed.one_case("a part of a message", piece, _JUDGED)
    allowed.one_of("a part of a message of the type", piece.get("type"), _PIECES)
    return _of_source(piece) + _kept(piece)


def _of_source(piece: Mapping[str, Any]) -> Weight:
    kind, source = piece.get("type"), piece.get("source")
    if kind == "search_result" or not isinstance(source, Mapping):
        return NOTHING  # `source` is the address it is said to be of, or this is itself a document's source
    match source.get("type"):
        case None | "text" | "content":
            return NOTHING
        case "base64" if kind == "image":
            data = source.get("data")
            return Weight(images=1, image_bytes=len(data) if isinstance(data, str) else 0)
        case "file":
            return stored("file_id")
        case "base64":
            return UNBOUNDED
    return FETCHED


def _tools(tools: list[dict[str, Any]]) -> int:
    """Tokens: with tools the vendor says more to the model than stands in the request ("Tool use: pricing")."""
    for tool in tools:
        allowed.one_case("a tool", tool, _TOOL)
        allowed.one_of("the tool", tool.get("type"), _TOOLS)
        if any(caller != "direct" for caller in allowed.listed(tool, "allowed_callers")):
            raise RequestRefused(
                "allowed_callers other than direct are not offered here: they have a price of their own"
            )
    own = sum(tool.get("type") not in (None, "custom") for tool in tools)
    return TOOLS_TOKENS_MAX + own * TOOL_TOKENS_MAX if tools else 0


def _edits(management: object) -> None:
    """What is only left out of the conversation costs less; a summary of it costs more, and is counted apart."""
    if management is None:
        return
    if not isinstance(management, dict):
        raise RequestRefused("context_management must be an object")
    allowed.only("context_management", management, ("edits",))
    for edit in allowed.objects(management, "edits"):
        allowed.one_of("the edit", edit.get("type"), _EDITS)


def _thinking(thinking: object) -> int:
    if thinking is None:
        return 0
    if not isinstance(thinking, dict):
        raise RequestRefused("thinking must be an object")
    allowed.only("thinking", thinking, ("type", "budget_tokens", "display"))
    return allowed.whole(thinking, "budget_tokens") or 0
