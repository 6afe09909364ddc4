"""What a benchmark found, and the table of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_HEADINGS = ("what", "unit", "ours", "peer", "ratio", "goal")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `ratio` is ours to the peer's, both measured in this run, in turns."""

    what: str
    unit: str
    ours: float
    peer: float | None = None
    ratio: float | None = None
    goal: float | None = None  # `ours` is to stay at or under it

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.ours <= self.goal


def compared(what: str, unit: str, ours: Sequence[float], peers: Sequence[float]) -> Figure:
    """Rounds taken in turns. The ratio is the median of the rounds' ratios: what slowed the machine slowed both."""
    if not peers:
        return Figure(what, unit, statistics.median(ours))
    ratios = [one / other for one, other in zip(ours, peers, strict=True)]
    return Figure(what, unit, statistics.median(ours), statistics.median(peers), statistics.median(ratios))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)  # rounded up
    return ordered[max(0, int(rank) - 1)]


def table(figures: Sequence[Figure]) -> str:
    rows = [_HEADINGS, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return "\n".join("  ".join(_cell(row, column, widths) for column in range(len(row))).rstrip() for row in rows)


def as_json(figures: Sequence[Figure]) -> str:
    return json.dumps([asdict(figure) | {"met": figure.met} for figure in figures], indent=2)


def _row(figure: Figure) -> tuple[str, ...]:
    goal = "" if figure.goal is None else f"<= {figure.goal:g} {'met' if figure.met else 'MISSED'}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    peer = "" if figure.peer is None else f"{figure.peer:.1f}"
    return (figure.what, figure.unit, f"{figure.ours:.1f}", peer, ratio, goal)


def _cell(row: Sequence[str], column: int, widths: Sequence[int]) -> str:
    return row[column].rjust(widths[column]) if 2 <= column <= 4 else row[column].ljust(widths[column])
