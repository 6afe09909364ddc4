"""An owner's key, tried by one real call before it is kept."""

from __future__ import annotations

import json
from typing import Any

from tinyfat.ports.inference import Api, Call, Inference, Target, VendorCut, VendorUnreachable
from tinyfat.relay.models import key_headers, url_of
from tinyfat.relay.vendors import FIXED_HEADERS

TRY_SECONDS_MAX = 30.0
ANSWER_BYTES_MAX = 256 * 1024
WORDS_CHARS_MAX = 300  # of a vendor's complaint
QUESTION = "Say OK."


async def try_key(vendors: Inference, target: Target, key: str) -> str:
    """Empty where the vendor answered the question; else why the key cannot be used, for its owner. A key that cannot
    be tried is not kept, either: nobody would know whether it works."""
    surface, path, body = _question(target)
    headers = {**FIXED_HEADERS, **key_headers(target, surface, key)}
    if surface == "messages":
        headers["anthropic-version"] = "2023-06-01"
    call = Call(url_of(target, path), headers, json.dumps(body).encode(), TRY_SECONDS_MAX, TRY_SECONDS_MAX)
    try:
        answer = await vendors.open(call)
        try:
            raw = b""
            async for piece in answer.pieces():
                raw += piece
                if len(raw) > ANSWER_BYTES_MAX:
                    break
        finally:
            answer.close()
    except (VendorUnreachable, VendorCut) as error:
        return f"{target.vendor} does not answer ({error}), so the key could not be tried. Try again in a moment."
    if answer.status == 200:
        return ""
    said = _words(raw).replace(key, "***")
    return f"{target.vendor} does not take this key: it answered {answer.status}{f', {said!r}' if said else ''}."


def _question(target: Target) -> tuple[str, str, dict[str, Any]]:
    """Surface, path, body. Without a bound but where one must be: models that think refuse a tight one."""
    asked = {"model": target.model, "messages": [{"role": "user", "content": QUESTION}]}
    if target.api is Api.ANTHROPIC:
        return "messages", "/v1/messages", {**asked, "max_tokens": 16}
    return "chat", "/v1/chat/completions", asked


def _words(raw: bytes) -> str:
    """What both vendors' errors have: {"error": {"message": ...}}."""
    try:
        error = json.loads(raw)["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return str(message)[:WORDS_CHARS_MAX]
