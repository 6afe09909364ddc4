"""What a call to a model costs, in integer nano-dollars, and what an agent may spend."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure, Value

NANODOLLARS_PER_DOLLAR = 1_000_000_000
DOLLARS_MAX = 1_000_000  # of one cap or one call: what is more is a slip of the keyboard
AMOUNT_MAX = DOLLARS_MAX * NANODOLLARS_PER_DOLLAR
TOKENS_MAX = 1_000_000_000  # of one call
WARNING_LEVELS = (50, 80, 100)  # per cent of the month's cap


class AmountRefused(ValueError):
    """This is not an amount of money."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the vendor counts them. `input` includes `cached` and `cache_written`."""

    input: int
    output: int  # includes `reasoning`
    cached: int = 0  # of the input: read from the vendor's cache
    cache_written: int = 0  # of the input: written to it
    reasoning: int = 0  # of the output
    estimated: bool = False  # counted by us, because the vendor reported nothing
    cache_written_1h: int = 0  # of what was written: to be kept for an hour, at a price of its own


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-dollars a token."""

    input: int
    output: int
    cached: int
    cache_written: int
    source: str  # e.g. "genai-prices 0.2.3 fireworks/minimax-m2p1", "tinyfat.toml"
    cache_written_1h: int | None = None  # None: as `cache_written`

    @property
    def hour(self) -> int:
        """Of a token written to the cache for an hour."""
        return self.cache_written if self.cache_written_1h is None else self.cache_written_1h


class Refusal(StrEnum):
    """Why a call may not be made."""

    UNKNOWN_KEY = "unknown-key"  # or a revoked one
    KILLED = "killed"  # the operator's or owner's kill switch
    MONTH = "month"
    DAY = "day"
    TURN_MONEY = "turn-money"
    TURN_CALLS = "turn-calls"
    REPEATED = "repeated"  # a call with this id was made and settled before
    OTHER_KEY = "other-key"  # another key of the owner's pays by now than the relay reckoned with: it asks again


@dataclass(frozen=True, slots=True)
class Caps:
    """Nano-dollars, but for the calls. None: no cap of this kind."""

    month: int | None
    day: int | None
    turn: int | None
    turn_calls: int | None
    killed: bool = False
    included: bool = False  # `month` is our included inference: it bounds what we pay, never what an owner's key does


# A managed agent's included inference. A turn that costs a dollar or calls 200 times is a loop, not an answer.
MANAGED_CAPS = Caps(8 * NANODOLLARS_PER_DOLLAR, None, NANODOLLARS_PER_DOLLAR, 200, included=True)


def cost(usage: Usage, price: Price) -> int:
    """Nano-dollars. A vendor that reports more cached than it took in is charged for what was cached."""
    fresh = max(usage.input - usage.cached - usage.cache_written, 0)
    return (
        fresh * price.input
        + usage.cached * price.cached
        + max(usage.cache_written - usage.cache_written_1h, 0) * price.cache_written
        + usage.cache_written_1h * price.hour
        + usage.output * price.output
    )


def worst_cost(input_tokens: int, output_tokens: int, price: Price, hour: bool = False, written: bool = True) -> int:
    """Nano-dollars: the most that so many tokens can cost, whatever the vendor's cache does. `hour`: the request asks
    it to keep something for an hour; not `written`: nothing is kept unless it is asked for, and it is not."""
    dearest = max(price.input, price.cached, price.cache_written if written else 0, price.hour if hour else 0)
    return input_tokens * dearest + output_tokens * price.output


def nanodollars(dollars: str | int | Decimal) -> int:
    """Exactly. Raises AmountRefused for what is negative, no number, over DOLLARS_MAX or finer than a nano-dollar."""
    try:
        amount = Decimal(dollars)
        if not amount.is_finite() or not 0 <= amount <= DOLLARS_MAX:
            raise AmountRefused(f"{dollars} is not an amount of dollars between 0 and {DOLLARS_MAX:,}.")
        exact = amount * NANODOLLARS_PER_DOLLAR
        if exact != int(exact):
            raise AmountRefused(f"{dollars} is finer than a nano-dollar (nine places).")
    except (InvalidOperation, TypeError, ValueError) as error:
        if isinstance(error, AmountRefused):
            raise
        raise AmountRefused(f"{dollars!r} is not an amount of dollars, such as 8 or 0.50.") from None
    return int(exact)


def dollars(nano: int) -> Decimal:
    """Exactly."""
    return Decimal(nano) / NANODOLLARS_PER_DOLLAR


def money(nano: int) -> str:
    """For people: "$8.00", "$0.0042"; never "$0.00" for what is not nothing."""
    amount = dollars(nano)
    if amount == 0 or abs(amount) >= Decimal("0.01"):
        return f"${amount:,.2f}"
    places = -amount.adjusted() + 1
    return f"${amount:.{min(places, 9)}f}"


def warning_crossed(before: int, after: int, cap: int | None) -> int | None:
    """The highest of WARNING_LEVELS that the month's sum passed on its way; None where it passed none."""
    if not cap:
        return None
    crossed = [level for level in WARNING_LEVELS if before * 100 < cap * level <= after * 100]
    return max(crossed, default=None)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a refused call was judged by: nano-dollars, but for TURN_CALLS, where cap and spent are calls."""

    cap: int
    spent: int
    reserved: int
    amount: int  # the most the call could have cost


def refusal_words(refusal: Refusal, agent: str, standing: Standing) -> str:
    """For the owner: which cap, how much, what to do."""
    fields: dict[str, Value] = {"calls": standing.spent}
    if refusal is not Refusal.TURN_CALLS:
        fields = {"spent": money(standing.spent), "cap": money(standing.cap), "amount": money(standing.amount)}
        fields |= {"reserved": money(standing.reserved)} if standing.reserved else {}
    return Failure(_REFUSED[refusal], fields).text(agent)


_REFUSED = {
    Refusal.UNKNOWN_KEY: FailureId.KEY_UNKNOWN,
    Refusal.KILLED: FailureId.SWITCHED_OFF,
    Refusal.MONTH: FailureId.CAP_MONTH,
    Refusal.DAY: FailureId.CAP_DAY,
    Refusal.TURN_MONEY: FailureId.CAP_TURN_MONEY,
    Refusal.TURN_CALLS: FailureId.CAP_TURN_CALLS,
    Refusal.REPEATED: FailureId.CALL_REPEATED,
    Refusal.OTHER_KEY: FailureId.OWNER_KEYS_CHANGED,
}
