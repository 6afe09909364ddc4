"""Prices from the data that ships in genai-prices: offline, pinned by the lock file.

The library also guesses, by the beginning or a part of a name. A price counts here only where the id we asked for is
written out in the data, or is such an id with a date behind it, as Anthropic and OpenAI name their snapshots. The
price's source names the entry it came from: "MiniMax-M2.1" at minimax is priced with M2, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import genai_prices
from genai_prices import data_snapshot
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from tinyfat.domain.prices import Cliff, PriceList, UnknownPrice, per_token
from tinyfat.domain.usage import Price

# The data has one price of writing to the cache, that of five minutes. Anthropic, "Prompt caching", Pricing: "1-hour
# cache write tokens are 2 times the base input tokens price".
HOUR_TIMES_FRESH = 2
_HOUR_VENDORS = ("anthropic",)
_DAY = range(0, 24 * 60, 15)  # minutes
CLAUSES_MAX = 1000  # of one model's match
_DATE = re.compile(r"-20\d{2}-?\d{2}-?\d{2}$")
_COUNTED = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
# What a text of ours can be charged for beyond its tokens: such a price is not known by the tokens alone.
_PER_CALL = ("requests_kcount", "input_mchars", "input_text_messages_kcount")


def known_prices(vendor: str, model: str, at: datetime) -> PriceList:
    """What the vendor asks at this time. Raises UnknownPrice with what to do."""
    info = _find(vendor, model)
    if info is None:
        raise UnknownPrice(
            f"No price is known of {model!r} at {vendor!r}: correct its id, or give its price in dollars per million "
            "tokens: price_input and price_output in its [[models]] entry, or, without one, "
            "TINYFAT_MODEL_PRICE=INPUT/OUTPUT."
        )
    found = info.get_prices(at)
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if any(info.get_prices(midnight + timedelta(minutes=minutes)) != found for minutes in _DAY):
        raise UnknownPrice(
            f"The price of {model!r} at {vendor!r} hangs on the hour of the day: write price_input and price_output, "
            "the dearest, in its [[models]] entry."
        )
    if found.input_mtok is None or any(getattr(found, key, None) for key in _PER_CALL):
        raise UnknownPrice(
            f"{model!r} at {vendor!r} is not priced by tokens alone: write price_input and price_output that cover it."
        )
    source = f"genai-prices {genai_prices.__version__} {vendor.lower()}/{info.id}"
    cliffs = tuple(Cliff(over, _price(found, vendor.lower(), over + 1, source)) for over in _cliffs(found))
    return PriceList(_price(found, vendor.lower(), 0, source), cliffs)


def known_window(vendor: str, model: str) -> int | None:
    """Tokens: the longest input that the model takes; None where nobody says."""
    info = _find(vendor, model)
    return info.context_window if info is not None else None


def _find(vendor: str, model: str) -> ModelInfo | None:
    try:
        _, info = data_snapshot.get_snapshot().find_provider_model(model, None, vendor.lower(), None)
    except LookupError:
        return None
    asked = model.lower()
    names = {info.id.lower(), *(name.lower() for name in _written(info.match))}
    return info if asked in names or _DATE.sub("", asked) in names else None


def _written(match: Any) -> Iterator[str]:
    """Every id written out in a model's match: of the clauses 'equals' and 'starts with', wherever they are."""
    waiting = [match]
    for _ in range(CLAUSES_MAX):
        if not waiting:
            return
        clause = waiting.pop()
        for kind in ("equals", "starts_with"):
            if isinstance(name := getattr(clause, kind, None), str):
                yield name
        waiting += getattr(clause, "or_", None) or []


def _price(found: ModelPrice, vendor: str, input_tokens: int, source: str) -> Price:
    """A cache that has no price of its own is priced as fresh input; a model without output puts out nothing."""
    fresh = _at(found.input_mtok, input_tokens)
    assert fresh is not None
    output = max(_at(found.output_mtok, input_tokens) or Decimal(0), _reasoning(found, input_tokens))
    cached, written = _at(found.cache_read_mtok, input_tokens), _at(found.cache_write_mtok, input_tokens)
    return Price(
        per_token(fresh),
        per_token(output),
        per_token(fresh if cached is None else cached),
        per_token(fresh if written is None else written),
        source,
        per_token(HOUR_TIMES_FRESH * fresh) if vendor in _HOUR_VENDORS and written is not None else None,
    )


def _reasoning(found: ModelPrice, input_tokens: int) -> Decimal:
    return _at(getattr(found, "output_reasoning_mtok", None), input_tokens) or Decimal(0)


def _at(price: Decimal | TieredPrices | None, input_tokens: int) -> Decimal | None:
    if not isinstance(price, TieredPrices):
        return price
    reached = [tier.price for tier in price.tiers if input_tokens > tier.start]
    return reached[-1] if reached else price.base


def _cliffs(found: ModelPrice) -> list[int]:
    tiered = [price for key in _COUNTED if isinstance(price := getattr(found, key, None), TieredPrices)]
    return sorted({tier.start for price in tiered for tier in price.tiers})
