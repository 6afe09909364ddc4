"""Steps that remember, and a process that dies at any of them: what a flow does when it goes on elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tinyfat.engine.steps import Flow, Steps

T = TypeVar("T")


class Crashed(BaseException):
    """The process is gone. No flow of ours can catch it."""


class RememberedSteps:
    """As the engine's: a step that finished is not done again. Dies where `dies_at` says, before or after the work."""

    def __init__(self) -> None:
        self.results: dict[int, Any] = {}
        self.count = 0
        self.dies_at: tuple[int, bool] | None = None  # (which step, its work done already)

    async def run(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        number, self.count = self.count, self.count + 1
        if number in self.results:
            return self.results[number]  # type: ignore[no-any-return]
        if self.dies_at == (number, False):
            raise Crashed
        result = await work()
        if self.dies_at == (number, True):
            raise Crashed  # done, and not remembered
        self.results[number] = result
        return result

    async def again(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        return await work()


async def through_crashes(flow: Flow, subject: str, deaths: list[tuple[int, bool]]) -> RememberedSteps:
    """Run the flow; die at each of `deaths` once, and go on from what is remembered."""
    steps = RememberedSteps()
    for death in [*deaths, None]:
        steps.count, steps.dies_at = 0, death
        try:
            await flow(_as_steps(steps), subject)
            break
        except Crashed:
            continue
    return steps


def _as_steps(steps: RememberedSteps) -> Steps:
    return steps
