"""Anthropic's messages, as their API reference describes them ("Messages", "Streaming messages"). Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tinyfat.standins.model_answer import CallTool, Say
from tinyfat.standins.model_openai import Tokens, pieces_of

_ERRORS = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}


def whole(answer: Say | CallTool, model: str, tokens: Tokens) -> dict[str, Any]:
    return {
        **_head(answer, model),
        "content": [_block(answer)],
        "stop_reason": _stop_reason(answer),
        "usage": _usage(answer, tokens),
    }


def events(answer: Say | CallTool, model: str, tokens: Tokens | None) -> list[str]:
    """Server-sent events; this vendor always counts, so `tokens` is given."""
    usage = _usage(answer, tokens or (0, 0))
    message = {**_head(answer, model), "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 0}}
    empty = _block(answer) | ({"text": ""} if isinstance(answer, Say) else {"input": dict[str, Any]()})
    parts = [
        _event("message_start", {"message": message}),
        _event("content_block_start", {"index": 0, "content_block": empty}),
    ]
    parts += [_event("content_block_delta", {"index": 0, "delta": delta}) for delta in _deltas(answer)]
    if isinstance(answer, Say) and answer.cut:
        return parts[: 2 + len(parts) // 2]
    delta = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
    return [
        *parts,
        _event("content_block_stop", {"index": 0}),
        _event("message_delta", {"delta": delta, "usage": {"output_tokens": usage["output_tokens"]}}),
        _event("message_stop", {}),
    ]


def error(status: int, message: str) -> dict[str, Any]:
    kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def _deltas(answer: Say | CallTool) -> list[dict[str, str]]:
    if isinstance(answer, Say):
        return [{"type": "text_delta", "text": piece} for piece in pieces_of(answer.text)]
    return [{"type": "input_json_delta", "partial_json": json.dumps(answer.arguments)}]


def _block(answer: Say | CallTool) -> dict[str, Any]:
    if isinstance(answer, Say):
        return {"type": "text", "text": answer.text}
    return {"type": "tool_use", "id": f"toolu_{_digest(answer)}", "name": answer.name, "input": answer.arguments}


def _head(answer: Say | CallTool, model: str) -> dict[str, Any]:
    return {
        "id": f"msg_{_digest(answer)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "stop_sequence": None,
    }


def _stop_reason(answer: Say | CallTool) -> str:
    return "end_turn" if isinstance(answer, Say) else "tool_use"


def _usage(answer: Say | CallTool, tokens: Tokens) -> dict[str, int]:
    if isinstance(answer, Say) and not answer.usage:
        return {"input_tokens": 0, "output_tokens": 0}
    return {"input_tokens": tokens[0], "output_tokens": tokens[1]}


def _event(kind: str, body: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **body})}\n\n"


def _digest(answer: Say | CallTool) -> str:
    return hashlib.sha256(repr(answer).encode()).hexdigest()[:24]
