"""What the relay must know of a surface: how much a request may cost, what an answer cost, and how to say no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tinyfat.domain.usage import Usage
from tinyfat.ports.inference import Target
from tinyfat.relay.shapes.reported import Count
from tinyfat.relay.shapes.sse import StreamReader
from tinyfat.relay.shapes.weight import Reading

TOKENS_MAX = 10**9  # a vendor that reports more than this of one call is not believed
_LABELS = ("type", "id", "call_id", "role", "status", "signature")
BYTES_PER_TOKEN = 4  # where we must count ourselves: the field's rule of thumb


@dataclass(frozen=True, slots=True)
class Bound:
    """The most tokens a call can cost. A token is at least one byte, so the request's bytes bound its text."""

    input: int
    output: int  # of all choices together
    hour: bool = False  # the vendor's cache may be asked to keep it for an hour, which is dearer
    written: bool = True  # the vendor's cache may be written to
    lowered: int = 0  # tokens of one choice, where the request's own bound must give way to a cap; 0: as it was asked


class Surface(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str:
        """From the host on, such as /v1/messages."""

    @property
    def refuses_in_words(self) -> bool:
        """A refusal is an answer in words; else an error (embeddings have no words)."""

    @property
    def listed(self) -> str:
        """The field that holds the conversation, as a list."""

    @property
    def passing(self) -> frozenset[str]:
        """The fields that do not change what the input weighs."""

    def read(self, fields: Mapping[str, Any]) -> Reading:
        """What it weighs and asks for. Raises RequestRefused for what the relay cannot make, or not count; then it
        names it."""

    def output_field(self, target: Target) -> str:
        """Where a request that names no bound on its output takes one."""

    def usage(self, answer: Mapping[str, Any]) -> Usage | None:
        """The largest of `counts` that say all; None where there is none."""

    def counts(self, answer: Mapping[str, Any]) -> list[Count]:
        """What an answer that was not streamed says of its usage, by every way it may be read."""

    def answers(self, answer: Mapping[str, Any]) -> bool:
        """Is it an answer of this surface, as against something else that says 200?"""

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
    if type(value) is dict:  # as nearly all are: to ask for a Mapping takes three times as long
        return value.get(name)
    return value.get(name) if isinstance(value, Mapping) else None


def estimated(size: int) -> int:
    """Tokens of so many bytes of text."""
    return -(-size // BYTES_PER_TOKEN)


def text_within(content: object) -> int:
    """Bytes of all the texts in an answer's content, however deep, but for what names and sorts its parts."""
    size = 0
    waiting: list[object] = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            size += len(value.encode(errors="surrogatepass"))
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, Mapping):
            waiting += [inner for name, inner in value.items() if name not in _LABELS]
    return size
