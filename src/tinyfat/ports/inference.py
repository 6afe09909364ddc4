"""What the relay asks of a vendor of models: make one call, and hand its answer over as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from tinyfat.domain.prices import PriceList

INPUT_TOKENS_MAX = 200_000  # assumed of a model whose context window nobody told us
OUTPUT_TOKENS_MAX = 32_000  # of a model whose longest answer nobody told us


class Api(StrEnum):
    """Whose wire format a vendor speaks first of all."""

    OPENAI = "openai-completions"
    ANTHROPIC = "anthropic-messages"


@dataclass(frozen=True, slots=True)
class Target:
    """One vendor's model: where an alias may lead."""

    vendor: str
    model: str  # the vendor's id
    url: str  # the base URL as the vendor's own client takes it
    api: Api
    prices: PriceList
    key: str = field(default="", repr=False)  # the operator's; an owner's own comes from `OwnerKeys`
    surfaces: frozenset[str] = frozenset()  # empty: what the API says
    input_max: int | None = None  # tokens: its window; None where nobody told us
    output_max: int = OUTPUT_TOKENS_MAX  # tokens

    @property
    def window(self) -> int:
        """Tokens: of what cannot be weighed, no more can be in it."""
        return INPUT_TOKENS_MAX if self.input_max is None else self.input_max


@dataclass(frozen=True, slots=True)
class Call:
    url: str
    headers: Mapping[str, str] = field(repr=False)  # with the key
    body: bytes = field(repr=False)
    first_byte_seconds: float
    idle_seconds: float  # between two pieces of the answer


class VendorUnreachable(Exception):
    """No answer began: refused, reset, or later than `first_byte_seconds`. The call may be made elsewhere.

    `silent`: the vendor has the whole call, and we stopped waiting: it may have worked on it, and bill it."""

    def __init__(self, words: str, silent: bool = False) -> None:
        super().__init__(words)
        self.silent = silent


class VendorCut(Exception):
    """The answer began and did not end: the connection broke, or was silent for `idle_seconds`."""


class Answer(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Their names in lower case. The vendor's id of the request is in `request-id` or `x-request-id`."""

    async def next(self) -> bytes:
        """The next piece, as it arrives; empty at the end. A cancelled wait loses nothing. Raises VendorCut."""

    def pieces(self) -> AsyncIterator[bytes]:
        """All that `next` gives; the first, which of an error is perhaps empty, is what came with the head. Raises
        VendorCut."""

    def close(self) -> None:
        """Hang up where the answer has not ended: the vendor stops producing. May be called again."""


class Sent(Protocol):
    """A call that is with the vendor."""

    async def answer(self) -> Answer:
        """Up to and with the answer's status and headers, whatever the status, and of one that is no error the first
        byte: a vendor that says 200 and then nothing has not answered. A cancelled wait can be taken up again. Raises
        VendorUnreachable."""

    def close(self) -> None:
        """Hang up, where there was no answer. May be called again, and after it was answered it does nothing."""


class Inference(Protocol):
    async def send(self, call: Call) -> Sent:
        """Raises VendorUnreachable."""

    async def open(self, call: Call) -> Answer:
        """`send` and `Sent.answer`; a cancellation hangs up. Raises VendorUnreachable."""

    async def close(self) -> None: ...


class OwnerKeys(Protocol):
    """The keys owners brought."""

    async def key(self, agent_id: str, vendor: str) -> str | None:
        """None where there is none."""


def vendor_request_id(headers: Mapping[str, str]) -> str:
    return headers.get("request-id") or headers.get("x-request-id") or ""
