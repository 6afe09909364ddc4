"""OpenAI's chat completions (API reference: "Chat", "Chat streaming")."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tinyfat.domain.usage import Usage
from tinyfat.ports.inference import Target
from tinyfat.relay.json_body import RequestRefused
from tinyfat.relay.shapes import allowed
from tinyfat.relay.shapes.openai_errors import openai_error
from tinyfat.relay.shapes.reported import Count, best
from tinyfat.relay.shapes.sse import ERRORS, USAGES, Fate, StreamReader, event
from tinyfat.relay.shapes.surface import part
from tinyfat.relay.shapes.tally import Tally
from tinyfat.relay.shapes.weight import NOTHING, UNBOUNDED, Reading, Weight, of_address, pieces, stored, total

CHOICES_MAX = 128  # the vendor's own limit of `n`
_OUTPUTS = ("max_tokens", "max_completion_tokens")
_PASSING = (
    "frequency_penalty", "logit_bias", "logprobs", "metadata", "min_p", "model", "n", "parallel_tool_calls",
    "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    "repetition_penalty", "safety_identifier", "seed", "service_tier", "speed", "stop", "store", "stream",
    "stream_options", "temperature", "top_k", "top_logprobs", "top_p", "user",
)  # fmt: skip
# The official client's (CompletionCreateParams), and what runtimes say to other vendors of how a model is to think.
_FIELDS = frozenset((
    *_OUTPUTS, *_PASSING, "audio", "chat_template_kwargs", "enable_thinking", "function_call", "functions",
    "inference_geo", "messages", "modalities", "moderation", "reasoning", "reasoning_effort", "reasoning_history",
    "reasoning_split", "response_format", "thinking", "tool_choice", "tool_stream", "tools", "verbosity",
    "web_search_options",
))  # fmt: skip
_PLAIN = frozenset(("role", "content", "name", "tool_calls", "tool_call_id"))
_TEXT = frozenset(("type", "text", "cache_control"))
_TOOL = frozenset(("type", "function", "custom"))
_JUDGED = frozenset(("audio", "content", "file", "file_id", "image_url", "role", "text", "type", "url"))


class Chat:
    name = "chat"
    path = "/v1/chat/completions"
    refuses_in_words = True

    listed = "messages"
    passing = frozenset((*_OUTPUTS, *_PASSING))

    def read(self, fields: Mapping[str, Any]) -> Reading:
        allowed.only("", fields, _FIELDS)
        allowed.streaming(fields)
        allowed.standard_price(fields)
        allowed.absent(fields, "audio", "web_search_options", "moderation")
        if any(kind != "text" for kind in allowed.listed(fields, "modalities")):
            raise RequestRefused("modalities other than text are not offered here: they have another price")
        for tool in allowed.objects(fields, "tools"):
            allowed.one_case("a tool", tool, _TOOL)
            allowed.one_of("the tool", tool.get("type"), ("function", "custom", None))
        outputs = tuple((name, most) for name in _OUTPUTS if (most := allowed.whole(fields, name)) is not None)
        choices = allowed.whole(fields, "n", CHOICES_MAX) or 1
        items = tuple(_weigh(message) for message in allowed.objects(fields, "messages"))
        rest = kept(fields)
        return Reading(rest, items, 0, outputs, choices, bool(fields.get("prediction")))

    def output_field(self, target: Target) -> str:
        """OpenAI's newer models refuse the older name; others know the newer one seldom."""
        return "max_completion_tokens" if target.vendor.lower() == "openai" else "max_tokens"

    def usage(self, answer: Mapping[str, Any]) -> Usage | None:
        return best(self.counts(answer))

    def counts(self, answer: Mapping[str, Any]) -> list[Count]:
        tally = Tally(lambda: False)
        for place, usage in _usages(answer):
            tally.add(place, usage)
        return tally.readings

    def answers(self, answer: Mapping[str, Any]) -> bool:
        return bool(_list(answer.get("choices")))

    def text_bytes(self, answer: Mapping[str, Any]) -> int:
        choices = answer.get("choices")
        return sum(_said(choice) for choice in choices) if isinstance(choices, list) else 0

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


_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')


class _ChatStream(StreamReader):
    watched = re.compile(USAGES + rb"|\[DONE\]|" + ERRORS, re.MULTILINE)
    marks = (b"[DONE]", b'"usage', b"error")

    def __init__(self, strip_usage: bool) -> None:
        super().__init__()
        self._strip_usage = strip_usage

    def look(self, event: Mapping[str, Any], kind: bytes) -> Fate:
        if kind == b"[DONE]":
            self.finished = True
            return Fate.LAST
        choices = event.get("choices")
        told = _usages(event)
        if told and not choices and not self.final:  # as the last but one; or as the first, with some vendors
            self.final = self.lately(_FINISH)
        for place, usage in told:
            self.tell(place, usage)
        return Fate.STRIP if told and self._strip_usage and not choices and self.fault is None else Fate.PASS

    def text_of(self, event: Mapping[str, Any]) -> int:
        return sum(_said(choice) for choice in _list(event.get("choices")))


def _usages(event: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(where it stands, the object): at the top, as Groq has it, and with each choice (Moonshot)."""
    found = [(name, event.get(name)) for name in ("usage", "usage_metadata", "usageMetadata")]
    found.append(("x_groq", part(event.get("x_groq"), "usage")))
    for number, choice in enumerate(_list(event.get("choices"))):
        within = (choice, part(choice, "delta"), part(choice, "message"))
        own = [usage for one in within if isinstance(usage := part(one, "usage"), (Mapping, list))]
        found += [(f"choice {number}", usage) for usage in own[:1]]
    return [(place, usage) for place, usage in found if isinstance(usage, (Mapping, list))]


def _said(choice: Any) -> int:
    """Bytes of all that it says, whatever the vendor calls it; but not twice, where it tells its reasoning apart."""
    size = 0
    for message in (part(choice, "delta"), part(choice, "message"), {"text": part(choice, "text")}):
        for name, value in message.items() if isinstance(message, Mapping) else ():
            if isinstance(value, str) and name not in ("role", "id", "name"):
                size += len(value.encode(errors="surrogatepass"))
            elif isinstance(value, (list, dict)) and value and name not in ("usage", "reasoning_details"):
                size += len(json.dumps(value))
    return size


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def kept(fields: Mapping[str, Any]) -> Weight:
    """The vendor keeps the answer in the account, to be listed there by whoever else has its key."""
    store = fields.get("store")
    if store not in (None, True, False):
        raise RequestRefused("store must be true or false")
    return Weight(stored="store") if store else NOTHING


def _weigh(message: Mapping[str, Any]) -> Weight:
    if isinstance(message.get("content"), str | None) and message.keys() <= _PLAIN:
        return NOTHING
    allowed.one_case("a message", message, _JUDGED)
    if message.get("audio"):
        raise RequestRefused("audio is not offered here: it has another price")
    return total(_of_piece(piece) for piece in pieces(message.get("content"), "content"))


def _of_piece(piece: Mapping[str, Any]) -> Weight:
    kind = piece.get("type")
    if kind == "text" and piece.keys() <= _TEXT:
        return NOTHING
    allowed.one_case("a part of a message", piece, _JUDGED)
    allowed.one_of("a part of a message of the type", kind, ("text", "refusal", "image_url", "file", None))
    if kind == "image_url":
        address = piece.get("image_url")
        return of_address(part(address, "url") if isinstance(address, Mapping) else address)
    if kind == "file":
        return stored("file_id") if part(piece.get("file"), "file_id") or piece.get("file_id") else UNBOUNDED
    return NOTHING
