"""What strangers, boxes and vendors send is in memory up to bounds that have names: docs/architecture.md lists them."""

from __future__ import annotations

import re
from importlib import import_module
from math import prod
from pathlib import Path
from typing import NamedTuple

import pytest

from tinyfat.engine.reading import BYTES_MAX, OWNERS_PART, Held, Reading, TooMuchBeingRead
from tinyfat.relay.bodies import BODIES_BYTES_MAX, BODIES_BYTES_PER_KEY_MAX, BODY_BYTES_MAX, Bodies, Place, TooMuch
from tinyfat.relay.reply import ANSWERS_BYTES_MAX

SECTION = "### What of it is in memory at once"
PIECE = 1024 * 1024


class Row(NamedTuple):
    surface: str
    each: str
    so_many: str
    bytes: str
    beyond: str


def _section() -> str:
    text = (Path(__file__).parent.parent / "docs/architecture.md").read_text("utf-8")
    return text.split(SECTION)[1].split("\n## ")[0]


def _rows() -> list[Row]:
    lines = [line for line in _section().splitlines() if line.startswith("| ")]
    return [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines[1:]]


def _value(name: str) -> int:
    if name.isdigit():
        return int(name)
    module, _, constant = name.strip("`").rpartition(".")
    value = getattr(import_module(f"tinyfat.{module}"), constant)
    assert type(value) is int
    return value


def _number(written: str) -> int:
    return int(written.replace(",", ""))


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row.surface)
def test_what_a_row_says_is_what_the_code_has(row: Row) -> None:
    each = sum(map(_value, row.each.split(" + ")))
    assert _number(row.bytes) == each * prod(map(_value, row.so_many.split(" × ")))
    for name in re.findall(r"`(\w+)`", row.beyond):  # beside the constants of this row
        named = [*row.each.split(" + "), *row.so_many.split(" × ")]
        homes = [one.strip("`").rpartition(".")[0] for one in named if not one.isdigit()]
        assert any(hasattr(import_module(f"tinyfat.{home}"), name) for home in homes), name


def test_the_sum_is_that_of_the_rows() -> None:
    [written] = re.findall(r"together ([\d,]+) bytes", _section())
    assert _number(written) == sum(_number(row.bytes) for row in _rows())


@pytest.mark.parametrize("bytes_max", [BYTES_MAX, ANSWERS_BYTES_MAX])
def test_many_holders_have_no_more_than_the_bound(bytes_max: int) -> None:
    reading = Reading(bytes_max)
    holders: list[Held] = []
    refused = 0
    for number in range(2 * bytes_max // PIECE):
        held = reading.hold(whose=f"owner {number % 7}")
        holders.append(held)
        try:
            held.more(PIECE)
        except TooMuchBeingRead:
            refused += 1
        assert reading.held <= bytes_max
    assert reading.held == bytes_max and refused == len(holders) - bytes_max // PIECE
    holders[0].end()
    reading.hold(PIECE, "another").end()
    for held in holders:
        held.end()
    assert reading.held == 0


@pytest.mark.parametrize("bytes_max", [BYTES_MAX, ANSWERS_BYTES_MAX])
def test_however_many_one_owner_has_they_are_its_part(bytes_max: int) -> None:
    reading = Reading(bytes_max)
    for _ in range(bytes_max // OWNERS_PART // PIECE):
        reading.hold(PIECE, "one")
    with pytest.raises(TooMuchBeingRead):
        reading.hold(1, "one")
    reading.hold(bytes_max - reading.held, "another").end()


def test_requests_of_many_keys_have_no_more_than_the_bound() -> None:
    bodies = Bodies()
    places: list[Place] = []
    with pytest.raises(TooMuch) as refused:
        for number in range(2 * BODIES_BYTES_MAX // BODY_BYTES_MAX):
            places.append(bodies.place(b"key %d" % number))
            bodies._take(BODY_BYTES_MAX, places[-1])
    assert refused.value.status == 503 and len(places) == BODIES_BYTES_MAX // BODY_BYTES_MAX + 1
    for place in places:
        bodies.leave(place)
    assert bodies._size == 0 and bodies._of_key == {}


def test_requests_of_one_key_are_its_part() -> None:
    bodies = Bodies()
    for _ in range(BODIES_BYTES_PER_KEY_MAX // BODY_BYTES_MAX):
        bodies._take(BODY_BYTES_MAX, bodies.place(b"one"))
    with pytest.raises(TooMuch):
        bodies._take(1, bodies.place(b"one"))
    bodies._take(BODY_BYTES_MAX, bodies.place(b"another"))
