"""What is being read at once has a bound, and nobody has all of it."""

from __future__ import annotations

import pytest

from tinyfat.engine.reading import Reading, TooMuchBeingRead


def test_all_that_is_being_read_has_a_bound() -> None:
    reading = Reading(100)
    with reading.hold(50, "a"), reading.hold(40, "b"):
        with pytest.raises(TooMuchBeingRead):
            reading.hold(11, "c")
        assert reading.held == 90
    assert reading.held == 0
    reading.hold(50, "c").end()


def test_one_owner_has_half_at_most_and_strangers_are_one() -> None:
    reading = Reading(100)
    with reading.hold(50, ""):
        with pytest.raises(TooMuchBeingRead):
            reading.hold(1, "")
        reading.hold(50, "a").end()
    reading.hold(50, "").end()


def test_what_grows_piece_by_piece_is_counted_as_it_comes() -> None:
    reading = Reading(100)
    with reading.hold(whose="a") as held:
        held.more(30)
        held.more(20)
        with pytest.raises(TooMuchBeingRead):
            held.more(1)
        assert reading.held == 50
        held.end()
        held.end()
    assert reading.held == 0
