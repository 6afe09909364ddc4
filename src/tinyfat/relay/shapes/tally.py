"""What one stream says of its usage, over all of its events: once, with every chunk, as sums or as steps, at the top,
with each choice (Moonshot) or under `x_groq`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce

from tinyfat.domain.usage import TOKENS_MAX
from tinyfat.relay.shapes.reported import Count, counts

READINGS_MAX = 16  # of one place that are kept apart


class Tally:
    """`place`: where in an event; of "choice N" each N counts its own. `said`: was anything said since the last one?"""

    def __init__(self, said: Callable[[], bool]) -> None:
        self._said = said
        self._places: dict[str, list[Count]] = {}
        self._last: dict[str, Count] = {}
        self._most: dict[str, Count] = {}  # in each of its fields
        self._sums: dict[str, int] = {}  # of the output
        self._stepping: set[str] = set()
        self._rose: set[str] = set()
        self._stood: dict[str, bool] = {}  # the same again, though more was said: perhaps of each event its own

    def add(self, place: str, usage: object, cache_beside: bool = False) -> bool:
        """True where `usage` says how much was produced until now."""
        found = counts(usage, cache_beside)
        for number, count in enumerate(found):
            self._add(f"{place} {number}" if number else place, count)
        return any(count.output is not None for count in found)

    @property
    def told(self) -> bool:
        """There are readings."""
        return bool(self._places)

    @property
    def readings(self) -> list[Count]:
        others: list[Count] = []
        choices: dict[str, list[Count]] = {}
        for place, kept in self._places.items():
            of_choice = place.split(" ")[:2] if place.startswith("choice") else None
            into = others if of_choice is None else choices.setdefault(of_choice[1], [])
            into += [*kept, *self._steps(place)]
        if len(choices) < 2:
            return [*others, *(count for kept in choices.values() for count in kept)]
        return [*others, _of_choices(list(choices.values()))]

    def _add(self, place: str, count: Count) -> None:
        before = self._last.get(place)
        self._last[place] = count
        self._sums[place] = min(self._sums.get(place, 0) + (count.output or 0), TOKENS_MAX)
        self._places[place] = _kept(self._places.get(place, []), count)
        if before is None:
            self._most[place] = count
            return
        if _falls(before, count):
            self._stepping.add(place)
        elif (count.output or 0) > (before.output or 0):
            self._rose.add(place)
        elif place not in self._rose and count.output and not self._stood.get(place):
            self._stood[place] = self._said()
        if place in self._stepping:
            self._most[place] = _together(self._most[place], count)
            self._places[place] = _kept(self._places[place], replace(self._most[place], output=self._sums[place]))
        else:
            self._most[place] = count

    def _steps(self, place: str) -> list[Count]:
        """Sums grow with what is said. Where they never did, each was of its own event."""
        if place in self._rose or not self._stood.get(place):
            return []
        return [replace(self._most[place], output=self._sums[place], total=0)]


def _of_choices(choices: Sequence[Sequence[Count]]) -> Count:
    """They have one input."""
    each = [max(found, key=lambda count: (count.output or 0, count.input or 0)) for found in choices]
    one = reduce(_together, each)
    outputs = [count.output for count in each if count.output is not None]
    return replace(one, input=one.input or None, output=sum(outputs) if outputs else None, total=0)


def _falls(before: Count, count: Count) -> bool:
    """Sums never do: these are steps."""
    return (count.input or 0) < (before.input or 0) or (count.output or 0) < (before.output or 0)


def _kept(found: list[Count], new: Count) -> list[Count]:
    """Without what `new` is at least as much as in everything."""
    if any(_covers(count, new) for count in found):
        return found
    kept = [count for count in found if not _covers(new, count)]
    return [*kept, new] if len(kept) < READINGS_MAX else [*kept[:-1], _together(kept[-1], new)]


def _covers(one: Count, other: Count) -> bool:
    """What was read from the cache is cheaper than the rest, so more of it is not more."""
    fresh = (one.input or 0) - one.cached - one.written, (other.input or 0) - other.cached - other.written
    names = ("total", "cached", "written", "written_1h", "fees", "cost")
    return fresh[0] >= fresh[1] and (one.output or 0) >= (other.output or 0) and all(
        getattr(one, name) >= getattr(other, name) for name in names
    )  # fmt: skip


def _together(one: Count, other: Count) -> Count:
    """No less than either: of what is cheaper, the less."""
    names = ("input", "output", "total", "written", "written_5m", "written_1h", "reasoning", "fees", "cost")
    most = {name: max(getattr(one, name) or 0, getattr(other, name) or 0) for name in names}
    return Count(cached=min(one.cached, other.cached), **most)
