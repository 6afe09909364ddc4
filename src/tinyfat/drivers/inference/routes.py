"""The operator's table of models: which vendors answer an alias, in which order, at which price.

[[models]]
alias = "main"                  # what agents ask for
vendor = "fireworks"
model = "accounts/fireworks/models/minimax-m2p1"

[[models]]                      # the same alias again: tried when the one above cannot answer
alias = "main"
vendor = "our-own"              # a vendor we do not know says where it is and what it costs
model = "qwen3-32b"
url = "http://10.0.0.7:8000/v1"
api = "openai-completions"
key_variable = "OUR_OWN_KEY"
price_input = 0                 # dollars per million tokens
price_output = 0
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from tinyfat.domain.prices import ModelRoute, PriceList, UnknownPrice, own_price, renamed
from tinyfat.drivers.inference.prices import known_prices
from tinyfat.drivers.inference.vendors import VENDORS, Vendor

MAIN = "main"  # the alias every agent has
STANDIN_VENDOR = "stand-in"
ROUTES_MAX = 200
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$"


class RouteRefused(ValueError):
    """An entry of the table of models cannot be used."""


class ModelEntry(BaseModel):
    """One [[models]] entry, as it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alias: str = Field(default=MAIN, pattern=_NAME)
    vendor: str = Field(pattern=_NAME)
    model: str = Field(min_length=1, max_length=300)
    api: Literal["openai-completions", "anthropic-messages"] | None = None
    url: str | None = None
    key_variable: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]{0,99}$")
    price_input: Decimal | None = None  # dollars per million tokens
    price_output: Decimal | None = None


def routes_of(entries: Sequence[ModelEntry], at: datetime) -> tuple[ModelRoute, ...]:
    """In their order, priced. Raises RouteRefused, naming the entry."""
    if len(entries) > ROUTES_MAX:
        raise RouteRefused(f"[[models]] has {len(entries)} entries; {ROUTES_MAX} are the most.")
    return tuple(_route(entry, at) for entry in entries)


def vendor_route(vendor: Vendor, model: str, at: datetime) -> ModelRoute:
    """The alias `main` at a vendor we know. Raises RouteRefused."""
    return _route(ModelEntry(vendor=vendor.name.lower(), model=model), at)


def standin_route(url: str, at: datetime) -> ModelRoute:
    """Our stand-in at the price of MiniMax M2.1, so that a ledger shows something; nobody is charged for it."""
    main = VENDORS[0]
    prices = renamed(known_prices(main.name, main.model, at), "stand-in")
    return ModelRoute(MAIN, STANDIN_VENDOR, MAIN, "openai-completions", url, "", prices)


def _route(entry: ModelEntry, at: datetime) -> ModelRoute:
    name = f"[[models]] {entry.alias} = {entry.vendor}/{entry.model}"
    known = next((vendor for vendor in VENDORS if vendor.name.lower() == entry.vendor.lower()), None)
    api = entry.api or (known.api if known else None)
    url = (entry.url or (known.url if known else "")).rstrip("/")
    if not api or not url:
        raise RouteRefused(f"{name}: {entry.vendor!r} is no vendor we know, so its url and api are needed.")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise RouteRefused(f"{name}: {url!r} is not an http:// or https:// URL.")
    # A vendor's own key is not sent to another address because somebody wrote the vendor's name beside it.
    usual = known.key_variable if known and url == known.url else ""
    key_variable = usual if entry.key_variable is None else entry.key_variable
    try:
        prices = _prices(entry, at)
    except UnknownPrice as error:
        raise RouteRefused(f"{name}: {error}") from None
    return ModelRoute(entry.alias, entry.vendor.lower(), entry.model, api, url, key_variable, prices)


def _prices(entry: ModelEntry, at: datetime) -> PriceList:
    if (entry.price_input is None) != (entry.price_output is None):
        raise UnknownPrice("price_input and price_output are set together or not at all.")
    if entry.price_input is not None and entry.price_output is not None:
        return own_price(entry.price_input, entry.price_output, "tinyfat.toml")
    return known_prices(entry.vendor, entry.model, at)
