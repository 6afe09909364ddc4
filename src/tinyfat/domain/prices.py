"""Which model an alias means, and what it costs: cliffs included, where a vendor asks more of long requests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal

from tinyfat.domain.usage import NANODOLLARS_PER_DOLLAR, Price

TOKENS_PER_PRICE = 1_000_000  # vendors quote dollars per million tokens


class UnknownPrice(ValueError):
    """Nobody knows what this model costs."""


@dataclass(frozen=True, slots=True)
class Cliff:
    """A request with more input tokens than `over` pays this price for all of its tokens."""

    over: int
    price: Price


@dataclass(frozen=True, slots=True)
class PriceList:
    base: Price
    cliffs: tuple[Cliff, ...] = ()  # `over` ascending

    def at(self, input_tokens: int) -> Price:
        """For a reservation: by the bound on the input; for a settlement: by the input that was reported."""
        if not self.cliffs:
            return self.base
        reached = [cliff.price for cliff in self.cliffs if input_tokens > cliff.over]
        return reached[-1] if reached else self.base


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """One place where an alias may be answered. An alias has several: they are tried in their order."""

    alias: str  # what an agent asks for
    vendor: str  # e.g. "fireworks"
    model: str  # the vendor's id
    api: str  # "openai-completions" or "anthropic-messages"
    url: str  # without a slash at its end
    key_variable: str  # the environment variable with our key at this vendor; "": none is needed
    prices: PriceList


def per_token(dollars_per_million: Decimal) -> int:
    """Nano-dollars a token, rounded up: never less than what the vendor asks, over by a tenth of a cent a million
    tokens at most. Raises UnknownPrice for what is no price."""
    if not dollars_per_million.is_finite() or not 0 <= dollars_per_million <= TOKENS_PER_PRICE:
        raise UnknownPrice(f"{dollars_per_million} is not a price in dollars per million tokens.")
    exact = dollars_per_million * NANODOLLARS_PER_DOLLAR / TOKENS_PER_PRICE
    return int(exact.to_integral_value(ROUND_CEILING))


def own_price(input_dollars: Decimal, output_dollars: Decimal, source: str) -> PriceList:
    """The operator's own price, dollars per million tokens; what a vendor's cache saves is then not counted."""
    price_input = per_token(input_dollars)
    return PriceList(Price(price_input, per_token(output_dollars), price_input, price_input, source))


def renamed(prices: PriceList, source: str) -> PriceList:
    """The same prices under another source."""
    cliffs = tuple(Cliff(cliff.over, replace(cliff.price, source=source)) for cliff in prices.cliffs)
    return PriceList(replace(prices.base, source=source), cliffs)
