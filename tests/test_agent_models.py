"""Whose key pays, and by which API an agent's runtime speaks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.store.ledgers import PRICE
from tinyfat.agent_models import ANTHROPIC, OPENAI, paying_vendor, spoken_api
from tinyfat.domain.byok import KnownVendorKey
from tinyfat.domain.prices import ModelRoute, PriceList


def route(vendor: str, api: str, alias: str = "main") -> ModelRoute:
    return ModelRoute(alias, vendor, "a-model", api, "http://127.0.0.1:9", "", PriceList(PRICE))


def kept(vendor: str, day: int) -> KnownVendorKey:
    return KnownVendorKey(vendor, "", 1, datetime(2026, 11, day, tzinfo=UTC))


FIREWORKS, CLAUDE = route("fireworks", OPENAI), route("anthropic", ANTHROPIC)


@pytest.mark.parametrize(
    ("routes", "vendor", "api"),
    [
        ([FIREWORKS], "", OPENAI), ([CLAUDE], "", ANTHROPIC), ([CLAUDE, FIREWORKS], "", OPENAI),
        ([CLAUDE, route("x", OPENAI, "other")], "", ANTHROPIC), ([FIREWORKS], "anthropic", ANTHROPIC),
        ([CLAUDE], "openai", OPENAI), ([route("anthropic", OPENAI)], "anthropic", OPENAI), ([CLAUDE], "nobody", OPENAI),
    ],
)  # fmt: skip
def test_anthropics_own_api_where_nobody_else_answers(routes: list[ModelRoute], vendor: str, api: str) -> None:
    assert spoken_api(routes, vendor) == api


def test_the_vendor_of_main_pays_else_the_newest() -> None:
    assert paying_vendor([FIREWORKS], []) == ""
    assert paying_vendor([FIREWORKS], [kept("openai", 2), kept("anthropic", 1)]) == "openai"
    assert paying_vendor([CLAUDE, FIREWORKS], [kept("openai", 2), kept("anthropic", 1)]) == "anthropic"
