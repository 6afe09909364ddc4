"""OpenAI's responses and embeddings, as their API reference describes them ("Responses", "Embeddings"). Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tinyfat.standins.model_answer import CallTool, Say
from tinyfat.standins.model_openai import CREATED, Tokens, pieces_of

DIMENSIONS = 8
TEXTS_MAX = 2048


def as_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same conversation as a chat: what `read_request` reads. Raises ValueError where there is no input."""
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not items:
        raise ValueError("input must be a text or a non-empty list")
    messages: list[dict[str, Any]] = []
    for item in items:
        if not isinstance(item, dict):
            raise ValueError("an item of input must be an object")  # noqa: TRY004 - the request is wrong, not our call
        if item.get("type") == "function_call_output":
            messages.append({"role": "tool", "content": str(item.get("output"))})
        elif "role" in item:
            messages.append({"role": item["role"], "content": _texts(item.get("content"))})
    tools = body.get("tools")
    functions = [{"type": "function", "function": t} for t in tools] if isinstance(tools, list) else []
    return {"messages": messages or [{"role": "user", "content": ""}], "tools": functions}


def whole(answer: Say | CallTool, model: str, tokens: Tokens) -> dict[str, Any]:
    counted = not isinstance(answer, Say) or answer.usage
    return {**_head(answer, model), "status": "completed", "output": [_item(answer)],
            "usage": _usage(tokens) if counted else None}  # fmt: skip


def events(answer: Say | CallTool, model: str, tokens: Tokens) -> list[str]:
    item = _item(answer)
    begun = {**_head(answer, model), "status": "in_progress", "output": [], "usage": None}
    bodies: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    if isinstance(answer, Say):
        at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        bodies.append({"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}})
        bodies.append({"type": "response.content_part.added", **at, "part": {**item["content"][0], "text": ""}})
        bodies += [
            {"type": "response.output_text.delta", **at, "delta": p, "logprobs": []} for p in pieces_of(answer.text)
        ]
        if answer.cut:
            return _numbered(bodies[: 3 + len(bodies) // 2])
        bodies.append({"type": "response.output_text.done", **at, "text": answer.text, "logprobs": []})
        bodies.append({"type": "response.content_part.done", **at, "part": item["content"][0]})
    else:
        at = {"item_id": item["id"], "output_index": 0}
        bodies.append({"type": "response.output_item.added", "output_index": 0, "item": {**item, "arguments": ""}})
        bodies.append({"type": "response.function_call_arguments.delta", **at, "delta": item["arguments"]})
        bodies.append({"type": "response.function_call_arguments.done", **at, "arguments": item["arguments"],
                       "name": item["name"]})  # fmt: skip
    bodies.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    bodies.append({"type": "response.completed", "response": whole(answer, model, tokens)})
    return _numbered(bodies)


def embeddings(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Numbers that are the same for the same text, and nothing more. Raises ValueError."""
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not 0 < len(texts) <= TEXTS_MAX:
        raise ValueError(f"input must be a text or a list of 1 to {TEXTS_MAX}")
    data = [{"object": "embedding", "index": n, "embedding": _vector(str(text))} for n, text in enumerate(texts)]
    tokens = sum(-(-len(str(text)) // 4) for text in texts)
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _texts(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _vector(text: str) -> list[float]:
    digest = hashlib.sha256(text.encode()).digest()
    return [byte / 255 for byte in digest[:DIMENSIONS]]


def _item(answer: Say | CallTool) -> dict[str, Any]:
    name = hashlib.sha256(repr(answer).encode()).hexdigest()[:24]
    if isinstance(answer, Say):
        text = {"type": "output_text", "text": answer.text, "annotations": list[str]()}
        return {
            "type": "message",
            "id": f"msg_{name}",
            "status": "completed",
            "role": "assistant",
            "content": [text],
        }
    arguments = json.dumps(answer.arguments)
    called = {"name": answer.name, "arguments": arguments, "status": "completed"}
    return {"type": "function_call", "id": f"fc_{name}", "call_id": f"call_{name}", **called}


def _head(answer: Say | CallTool, model: str) -> dict[str, Any]:
    name = hashlib.sha256(repr(answer).encode()).hexdigest()[:24]
    return {
        "id": f"resp_{name}", "object": "response", "created_at": CREATED, "model": model, "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True,
        "tool_choice": "auto", "tools": [], "temperature": 1.0, "top_p": 1.0,
    }  # fmt: skip


def _usage(tokens: Tokens) -> dict[str, Any]:
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens), **details}


def _numbered(bodies: list[dict[str, Any]]) -> list[str]:
    return [
        f"event: {body['type']}\ndata: {json.dumps({**body, 'sequence_number': number})}\n\n"
        for number, body in enumerate(bodies)
    ]
