"""A deadline of a test is this machine's: no bare number of seconds that a slower or busier one would miss."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
SHORT_SECONDS = 1.0  # below it the test means that the time runs out


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func)


def _deadlines(call: ast.Call) -> Iterator[ast.expr]:
    """What a call takes as the seconds after which its test fails."""
    if _name(call) in ("asyncio.timeout", "asyncio.wait_for"):
        yield from call.args[-1:]
    yield from (keyword.value for keyword in call.keywords if keyword.arg == "timeout")


def bare_deadlines(source: str) -> list[int]:
    """The lines of deadlines that are numbers as they stand."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        value.lineno
        for call in calls
        for value in _deadlines(call)
        if isinstance(value, ast.Constant) and isinstance(value.value, int | float) and value.value >= SHORT_SECONDS
    ]


def test_deadlines_scale_with_the_machine() -> None:
    found = {str(path.relative_to(TESTS)): bare_deadlines(path.read_text()) for path in sorted(TESTS.rglob("*.py"))}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_a_bare_deadline_is_seen() -> None:
    source = "asyncio.timeout(8)\nasyncio.wait_for(it, 5)\nget(url, timeout=30.0)\n"
    assert bare_deadlines(source) == [1, 2, 3]
    assert bare_deadlines(source.replace("8", "patient(8)").replace(" 5", " 0.05").replace("30.0", "SECONDS")) == []
