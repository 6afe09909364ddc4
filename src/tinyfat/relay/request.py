"""A request's body: read as far as it must be, and changed in the bytes of a few fields alone. Pure.

What we judge must be what the vendor reads. A field given twice is refused: the vendor might read the other one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODEL_CHARS_MAX = 200

# A string, or a bracket: what else there is between them needs no look.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.DOTALL)
_MODEL = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_JUDGED = ("model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "max_output_tokens", "n",
           "background", "service_tier", "previous_response_id")  # fmt: skip
_QUOTED = tuple(b'"%s"' % name.encode() for name in _JUDGED)
_ASK_USAGE = b'"stream_options":{"include_usage":true},'


class RequestRefused(ValueError):
    """The body cannot be used; the text is for the client."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    raw: bytes
    fields: Mapping[str, Any]
    model: str
    streamed: bool
    spans: Mapping[str, tuple[int, int]]  # where the values of `_JUDGED` are in `raw`


def read_request(raw: bytes) -> ModelRequest:
    """Raises RequestRefused."""
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        raise RequestRefused("the body is not JSON") from None
    if not isinstance(fields, dict):
        raise RequestRefused("the body must be a JSON object")
    model = fields.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MODEL_CHARS_MAX:
        raise RequestRefused(f"model must be a text of 1 to {MODEL_CHARS_MAX} characters")
    streamed = fields.get("stream")
    if streamed not in (None, True, False):
        raise RequestRefused("stream must be true or false")
    return ModelRequest(raw, fields, model, bool(streamed), _spans(raw, model))


def upstream_body(request: ModelRequest, model: str, ask_usage: bool) -> bytes:
    """With the vendor's name of the model; `ask_usage`: and with stream_options.include_usage. Else byte for byte."""
    changes = [(*request.spans["model"], json.dumps(model).encode())]
    if ask_usage and "stream_options" in request.spans:
        options = request.fields["stream_options"]
        wanted = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        changes.append((*request.spans["stream_options"], json.dumps(wanted).encode()))
    elif ask_usage:
        after = request.raw.index(b"{") + 1
        changes.append((after, after, _ASK_USAGE))
    out = request.raw
    for start, end, value in sorted(changes, reverse=True):
        out = out[:start] + value + out[end:]
    return out


def wants_usage(request: ModelRequest) -> bool:
    options = request.fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _spans(raw: bytes, model: str) -> Mapping[str, tuple[int, int]]:
    """Most bodies name each field once and without escapes: then one search finds the model."""
    plain = b"\\u00" not in raw and b"stream_options" not in raw
    if plain and max(map(raw.count, _QUOTED)) <= 1:
        found = _MODEL.search(raw)
        if found is not None and json.loads(found[1]) == model and raw[:3] != b"\xef\xbb\xbf":
            return {"model": found.span(1)}
    return _walk(raw)


def _walk(raw: bytes) -> Mapping[str, tuple[int, int]]:
    """Over the whole body, which is known to be a JSON object, for the fields of its first level."""
    spans: dict[str, tuple[int, int]] = {}
    depth = 0
    key, start = "", -1
    last: bytes = b""
    for token in _TOKEN.finditer(raw):
        mark = token[0]
        first = mark[:1]
        if depth == 1 and start >= 0 and mark in (b",", b"}"):
            _add(spans, key, start, token.start(), raw)
            start = -1
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
        elif depth == 1 and mark == b":" and start < 0:
            key, start = str(json.loads(last)), token.end()
        if first == b'"':
            last = mark
    if "model" not in spans:
        raise RequestRefused("the body has no model")
    return spans


def _add(spans: dict[str, tuple[int, int]], key: str, start: int, end: int, raw: bytes) -> None:
    if key not in _JUDGED:
        return
    if key in spans:
        raise RequestRefused(f"{key} is given twice")
    value = raw[start:end]
    spans[key] = (start + len(value) - len(value.lstrip()), start + len(value.rstrip()))
