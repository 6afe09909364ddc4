"""OpenAI's errors (API reference: "Error codes"), the same on all of its surfaces."""

from __future__ import annotations

import json

_CODES = {401: "invalid_api_key", 404: "model_not_found", 413: "request_too_large", 429: "rate_limit_exceeded"}


def openai_error(status: int, message: str) -> bytes:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": _CODES.get(status)}}).encode()
