"""OpenAI's chat completions, as their API reference describes them ("Chat", "Streaming events"). Pure."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from tinyfat.standins.model_answer import CallTool, Say

CREATED = 1_700_000_000  # a fixed Unix time: the same request gives the same bytes

Tokens = tuple[int, int]  # in, out


def whole(answer: Say | CallTool, model: str, tokens: Tokens) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text if isinstance(answer, Say) else None}
    if isinstance(answer, CallTool):
        message["tool_calls"] = [_tool_call(answer)]
    body: dict[str, Any] = {
        "id": _id(answer),
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": _finish(answer), "logprobs": None}],
    }
    if not isinstance(answer, Say) or answer.usage:
        body["usage"] = _usage(tokens)
    return body


def events(answer: Say | CallTool, model: str, tokens: Tokens | None) -> list[str]:
    """Server-sent events; `tokens` where the client asked for usage."""
    head = {"id": _id(answer), "object": "chat.completion.chunk", "created": CREATED, "model": model}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        return _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    if isinstance(answer, CallTool):
        parts = [chunk({"role": "assistant", "content": None, "tool_calls": [{"index": 0, **_tool_call(answer)}]})]
    else:
        pieces = pieces_of(answer.text)
        parts = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": piece}) for piece in pieces)]
        if answer.cut:
            return parts[: 1 + len(parts) // 2]
    parts.append(chunk({}, _finish(answer)))
    if tokens is not None and (not isinstance(answer, Say) or answer.usage):
        parts.append(_event({**head, "choices": [], "usage": _usage(tokens)}))
    return [*parts, "data: [DONE]\n\n"]


def error(status: int, message: str) -> dict[str, Any]:
    kind = {429: "rate_limit_exceeded", 401: "invalid_api_key"}.get(status, "server_error" if status >= 500 else None)
    kind_name = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind_name, "param": None, "code": kind}}


def pieces_of(text: str) -> list[str]:
    """A text in the pieces it is streamed in: words with the space after them."""
    return re.findall(r"\s*\S+\s*", text) or [text]


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"


def _finish(answer: Say | CallTool) -> str:
    return "stop" if isinstance(answer, Say) else "tool_calls"


def _tool_call(answer: CallTool) -> dict[str, Any]:
    function = {"name": answer.name, "arguments": json.dumps(answer.arguments)}
    return {"id": f"call_{_digest(answer)}", "type": "function", "function": function}


def _usage(tokens: Tokens) -> dict[str, int]:
    return {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}


def _id(answer: Say | CallTool) -> str:
    return f"chatcmpl-{_digest(answer)}"


def _digest(answer: Say | CallTool) -> str:
    return hashlib.sha256(repr(answer).encode()).hexdigest()[:24]
