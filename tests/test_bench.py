"""The benchmarks' own words: what is missed is said, to whoever reads the table and to whoever runs it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from bench import __main__ as bench
from bench.caps import spent
from bench.figures import Figure

CAP_DOLLARS = 1.0


@pytest.mark.parametrize(("ours", "code"), [([1.0, 2.0], 0), ([1.0, 2.1], 1)])
def test_a_goal_that_is_missed_is_the_exit_code(
    ours: list[float], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(programs: list[str], seconds: float, folder: Path) -> list[Figure]:
        return [Figure("without a goal", "s", 99.0), *(Figure("x", "%", one, goal=2.0) for one in ours)]

    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(sys, "argv", ["bench", "caps"])
    assert bench.main() == code
    assert ("MISSED" in capsys.readouterr().out) == bool(code)


def test_a_cap_lets_nearly_all_of_it_be_spent_and_never_more() -> None:
    """One line of `bench caps`, with a cache and without."""
    for caches in (False, True):
        dollars, refused = asyncio.run(spent("mails, growing", "opus", caches))
        assert CAP_DOLLARS - refused - 0.01 <= dollars <= CAP_DOLLARS
