"""The chart of `tinyfat usage`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinyfat.cli.usage import BAR_CHARS_MAX, bar


def test_the_most_fills_the_bar_and_a_half_half_of_it() -> None:
    assert bar(10, 10) == "█" * BAR_CHARS_MAX
    assert bar(5, 10) == "█" * (BAR_CHARS_MAX // 2)
    assert bar(0, 10) == bar(0, 0) == ""


@given(st.integers(1, 10**15), st.integers(0, 10**15))
def test_nothing_that_was_spent_is_invisible(amount: int, more: int) -> None:
    assert 1 <= len(bar(amount, amount + more)) <= BAR_CHARS_MAX
