"""Money: exact, in words that do not lie, bounded from above before a call."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfat.domain.prices import Cliff, PriceList, UnknownPrice, own_price, per_token
from tinyfat.domain.usage import (
    DOLLARS_MAX,
    AmountRefused,
    Price,
    Refusal,
    Standing,
    Usage,
    cost,
    dollars,
    money,
    nanodollars,
    refusal_words,
    warning_crossed,
    worst_cost,
)

_TOKENS = st.integers(0, 10**7)
_PRICES = st.builds(Price, *[st.integers(0, 10**6)] * 4, st.just("x"), st.none() | st.integers(0, 10**6))


@given(st.integers(0, DOLLARS_MAX * 10**9))
def test_dollars_and_nanodollars_are_the_same_money(nano: int) -> None:
    assert nanodollars(dollars(nano)) == nano == nanodollars(str(dollars(nano)))


@pytest.mark.parametrize(
    "text", ["-1", "nan", "inf", "", "a", "0.0000000001", "1000001", "1e400", "8,50", "-0.0000001"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(AmountRefused):
        nanodollars(text)


@given(_TOKENS, _TOKENS, st.data(), _PRICES)
def test_no_call_costs_more_than_its_bound(tokens_in: int, tokens_out: int, data: st.DataObject, price: Price) -> None:
    fresh = data.draw(st.integers(0, tokens_in))
    cached = data.draw(st.integers(0, fresh))
    written = data.draw(st.integers(0, fresh - cached))
    hour = data.draw(st.integers(0, written))
    usage = Usage(fresh, data.draw(st.integers(0, tokens_out)), cached, written, cache_written_1h=hour)
    assert 0 <= cost(usage, price) <= worst_cost(tokens_in, tokens_out, price, hour > 0)


def test_each_token_is_paid_once_at_its_price() -> None:
    assert cost(Usage(10, 4, cached=3, cache_written=2, reasoning=4), Price(100, 1000, 10, 125, "")) == (
        5 * 100 + 3 * 10 + 2 * 125 + 4 * 1000
    )
    assert cost(Usage(1, 0, cached=5), Price(100, 0, 10, 0, "")) == 50


@pytest.mark.parametrize(
    ("nano", "words"),
    [(0, "$0.00"), (8 * 10**9, "$8.00"), (1, "$0.000000001"), (4_200_000, "$0.0042"), (1_234_560_000_000, "$1,234.56")],
)
def test_money_in_words(nano: int, words: str) -> None:
    assert money(nano) == words


@pytest.mark.parametrize(
    ("before", "after", "cap", "level"),
    [(0, 49, 100, None), (49, 50, 100, 50), (50, 79, 100, None), (10, 80, 100, 80), (0, 250, 100, 100),
     (100, 250, 100, None), (0, 5, None, None), (0, 5, 0, None)],
)  # fmt: skip
def test_the_highest_level_crossed(before: int, after: int, cap: int | None, level: int | None) -> None:
    assert warning_crossed(before, after, cap) == level


@pytest.mark.parametrize("refusal", Refusal)
def test_every_refusal_says_what_to_do(refusal: Refusal) -> None:
    words = refusal_words(refusal, "ada", Standing(8 * 10**9, 7_990_000_000, 10**6, 20_000_000))
    assert len(words) > 40 and ("ada" in words or refusal is Refusal.UNKNOWN_KEY)
    if refusal in (Refusal.MONTH, Refusal.DAY, Refusal.TURN_MONEY):
        assert all(part in words for part in ("$8.00", "$7.99", "$0.0010", "$0.02", "tinyfat cap set ada"))


def test_a_price_list_has_its_cliffs() -> None:
    base, dear = Price(1, 1, 1, 1, "a"), Price(2, 2, 2, 2, "b")
    prices = PriceList(base, (Cliff(200_000, dear),))
    assert [prices.at(n) for n in (0, 200_000, 200_001)] == [base, base, dear]


def test_prices_are_never_rounded_down() -> None:
    assert per_token(Decimal("0.3")) == 300 and per_token(Decimal("0.01875")) == 19 and per_token(Decimal(0)) == 0
    assert own_price(Decimal("0.1"), Decimal("0.4"), "x").base == Price(100, 400, 100, 100, "x")
    for wrong in ("-1", "nan", "1e9"):
        with pytest.raises(UnknownPrice):
            per_token(Decimal(wrong))
