"""What a call to a model costs, in integer nano-dollars, and what an agent may spend."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NANODOLLARS_PER_DOLLAR = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the vendor counts them. `input` includes `cached` and `cache_written`."""

    input: int
    output: int  # includes `reasoning`
    cached: int = 0  # of the input: read from the vendor's cache
    cache_written: int = 0  # of the input: written to it
    reasoning: int = 0  # of the output
    estimated: bool = False  # counted by us, because the vendor reported nothing


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-dollars a token."""

    input: int
    output: int
    cached: int
    cache_written: int
    source: str  # e.g. "genai-prices 0.2.3 fireworks/minimax-m2p1", "tinyfat.toml"


class Refusal(StrEnum):
    """Why a call may not be made."""

    UNKNOWN_KEY = "unknown-key"  # or a revoked one
    KILLED = "killed"  # the operator's or owner's kill switch
    MONTH = "month"
    DAY = "day"
    TURN_MONEY = "turn-money"
    TURN_CALLS = "turn-calls"


@dataclass(frozen=True, slots=True)
class Caps:
    """Nano-dollars, but for the calls. None: no cap of this kind."""

    month: int | None
    day: int | None
    turn: int | None
    turn_calls: int | None
    killed: bool = False
