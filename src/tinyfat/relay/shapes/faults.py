"""An answer that says 200 and is an error: what it says, and which status it should have had. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WORDS_CHARS_MAX = 300
UNTOLD = 502  # an error that says no more of itself

# Anthropic, "Errors"; OpenAI, "Error codes", and the codes of a response that failed.
_STATUSES = {
    "invalid_request_error": 400, "invalid_prompt": 400, "bad_request": 400, "context_length_exceeded": 400,
    "authentication_error": 401, "invalid_api_key": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "model_not_found": 404, "request_too_large": 413, "rate_limit_error": 429,
    "rate_limit_exceeded": 429, "insufficient_quota": 429, "too_many_requests": 429, "api_error": 500,
    "server_error": 500, "internal_server_error": 500, "engine_overloaded": 503, "service_unavailable": 503,
    "timeout_error": 504, "overloaded_error": 529,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    status: int
    words: str


def fault_in(answer: Mapping[str, Any]) -> Fault | None:
    """Of a whole answer or of one event; None where it is no error."""
    response = answer.get("response")
    if answer.get("type") == "response.failed" and isinstance(response, Mapping):
        answer = {**response, "status": "failed"}
    error = answer.get("error")
    if isinstance(error, Mapping) and error:
        return fault_of(error)
    if isinstance(error, str) and error:
        return fault_of({"message": error, "code": answer.get("status") or answer.get("code")})
    if answer.get("type") == "error" or answer.get("object") == "error" or answer.get("status") == "failed":
        return fault_of(answer)
    base = answer.get("base_resp")  # MiniMax
    if isinstance(base, Mapping) and base.get("status_code") not in (None, 0):
        return fault_of({"message": base.get("status_msg")})
    return _in_choices(answer.get("choices"))


def _in_choices(choices: object) -> Fault | None:
    """OpenRouter: what the provider behind it could not do is told there."""
    for choice in choices if isinstance(choices, list) else ():
        error = choice.get("error") if isinstance(choice, Mapping) else None
        if isinstance(error, Mapping) and error:
            return fault_of(error)
    return None


def fault_of(error: Mapping[str, Any]) -> Fault:
    words = error.get("message") or error.get("msg") or error.get("detail") or ""
    for name in ("status", "status_code", "code", "type"):
        value = error.get(name)
        if isinstance(value, str):
            value = int(value) if value.isdecimal() and len(value) == 3 else _STATUSES.get(value.lower())
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
            return Fault(value, str(words)[:WORDS_CHARS_MAX])
    return Fault(UNTOLD, str(words)[:WORDS_CHARS_MAX])
