"""What the relay must know of a surface: how much a request may cost, what an answer cost, and how to say no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tinyfat.domain.usage import Usage
from tinyfat.ports.inference import Target
from tinyfat.relay.shapes.sse import StreamReader

TOKENS_MAX = 10**9  # a vendor that reports more than this of one call is not believed
BYTES_PER_TOKEN = 4  # where we must count ourselves: the field's rule of thumb


@dataclass(frozen=True, slots=True)
class Bound:
    """The most tokens a call can cost. A token is at least one byte, so the request's bytes bound its text."""

    input: int
    output: int
    hour: bool = False  # the vendor's cache may be asked to keep it for an hour, which is dearer


class Surface(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str:
        """From the host on, such as /v1/messages."""

    @property
    def refuses_in_words(self) -> bool:
        """A refusal is an answer in words; else an error (embeddings have no words)."""

    def bound(self, request: Mapping[str, Any], size: int, target: Target) -> Bound:
        """`size`: the request's bytes."""

    def objection(self, request: Mapping[str, Any]) -> str:
        """Why the relay cannot make this call and count it; empty where it can."""

    def usage(self, answer: Mapping[str, Any]) -> Usage | None: ...

    def text_bytes(self, answer: Mapping[str, Any]) -> int:
        """Of what the model produced in an answer that was not streamed."""

    def stream(self, strip_usage: bool) -> StreamReader: ...

    def refusal(self, words: str, model: str, call_id: str, streamed: bool) -> bytes: ...

    def error(self, status: int, message: str) -> bytes: ...


def count(value: object) -> int | None:
    """A number of tokens as a vendor reports it; None where it cannot be one."""
    fine = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= TOKENS_MAX
    return value if fine and isinstance(value, int) else None


def part(value: object, name: str) -> Any:
    """`value[name]` where there is such a thing."""
    return value.get(name) if isinstance(value, Mapping) else None


def wished(request: Mapping[str, Any], *names: str) -> int | None:
    """The largest of the request's own bounds on its output."""
    found = [number for name in names if (number := count(request.get(name))) is not None]
    return max(found) if found else None


def estimated(size: int) -> int:
    """Tokens of so many bytes of text."""
    return -(-size // BYTES_PER_TOKEN)


def priced_otherwise(request: Mapping[str, Any]) -> str:
    """Ways to be served that cost more than the price we know."""
    tier = request.get("service_tier")
    if tier not in (None, "auto", "default", "standard_only", "flex"):
        return f"service_tier {str(tier)[:40]!r} is not offered here: it has another price"
    if request.get("speed") not in (None, "standard"):
        return "speed is not offered here: it has another price"
    if request.get("inference_geo") not in (None, "global"):
        return "inference_geo is not offered here: it has another price"
    return ""
