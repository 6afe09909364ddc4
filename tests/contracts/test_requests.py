"""What budgets of requests and remembered shortages must do, of one process and of all on one database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.postgres import database, server
from tinyfat.domain.request_limits import PAUSE_SECONDS_MAX, RequestLimit
from tinyfat.domain.shortages import PAUSE_SECONDS_FIRST, PROBE_SECONDS
from tinyfat.domain.shortages import PAUSE_SECONDS_MAX as SHORT_SECONDS_MAX
from tinyfat.drivers.request_budget import LocalBudget, LocalShortages
from tinyfat.ports.requests import RequestBudget, Shortages
from tinyfat.store.database import Database
from tinyfat.store.request_budgets import StoredBudget, StoredLimits, StoredShortages

__all__ = ["database", "server"]

LIMIT = RequestLimit(100, 1.0, 20)
THING = "cx23 in fsn1"


@dataclass
class Here:
    """Two processes' views: of one process, it is the same one twice."""

    now: list[float]
    budgets: tuple[RequestBudget, RequestBudget]
    shortages: tuple[Shortages, Shortages]


@pytest.fixture(params=["one process", "all processes"])
def here(request: pytest.FixtureRequest, database: Database) -> Here:
    now = [1_000_000.0]

    def clock() -> float:
        return now[0]

    if request.param == "one process":
        budget, shortages = LocalBudget(LIMIT, clock), LocalShortages(clock)
        return Here(now, (budget, budget), (shortages, shortages))
    limits = StoredLimits(database, clock)
    return Here(
        now,
        tuple(limits.budget("a", LIMIT, LocalBudget(LIMIT, clock)) for _ in range(2)),  # type: ignore[arg-type]
        tuple(limits.shortages("a", LocalShortages(clock)) for _ in range(2)),  # type: ignore[arg-type]
    )


async def taken(budgets: tuple[RequestBudget, ...], ending: bool, tries: int) -> int:
    waits = await asyncio.gather(*(budgets[n % len(budgets)].take(ending) for n in range(tries)))
    return sum(wait == 0 for wait, _ in waits)


async def test_together_they_make_no_more_than_there_are_and_ends_have_the_rest(here: Here) -> None:
    assert await taken(here.budgets, False, 90) == 80
    assert await taken(here.budgets, True, 30) == 20
    wait, left = await here.budgets[0].take(True)
    assert (wait, left) == (1.0, 0.0)
    wait, _ = await here.budgets[1].take(False)
    assert wait == 21.0
    here.now[0] += 5
    assert await taken(here.budgets, True, 9) == 5
    here.now[0] += 1e6
    assert await taken(here.budgets, False, 200) == 80


async def test_minutes_of_asking_all_the_time_are_within_the_limit(here: Here) -> None:
    made = 0
    for _ in range(6):
        made += await taken(here.budgets, False, 90)
        here.now[0] += 60
    assert made == LIMIT.capacity - LIMIT.reserve + 5 * 60 * LIMIT.per_second


async def test_after_a_refusal_only_ends_go_on_and_at_their_pace(here: Here) -> None:
    await here.budgets[0].refused(500)
    assert (await here.budgets[1].take(False))[0] == 500
    assert await taken(here.budgets, True, 5) == 0
    here.now[0] += 30
    assert await taken(here.budgets, True, 40) == 30 and await taken(here.budgets, False, 5) == 0
    here.now[0] += 469
    assert await taken(here.budgets, False, 5) == 0
    here.now[0] += 1
    assert await taken(here.budgets, False, 5) == 5


async def test_no_vendors_word_stops_us_for_ever(here: Here) -> None:
    await here.budgets[0].refused(1e12)
    assert (await here.budgets[1].take(False))[0] == PAUSE_SECONDS_MAX


async def test_what_the_vendor_says_is_left_counts_where_it_is_less(here: Here) -> None:
    assert (await here.budgets[0].take(False, 0, 50.0))[1] == 0.49
    assert (await here.budgets[1].take(False, 0, 90.0))[1] == 0.48
    assert (await here.budgets[0].take(False, 7))[1] == 0.40
    assert (await here.budgets[0].take(True, 1000))[0] == 1.0


async def test_of_what_is_short_one_asks_again_and_the_others_do_not(here: Here) -> None:
    one, two = here.shortages
    assert await one.probe(THING) and await two.probe(THING) and await one.known() == {}
    for shortages in (one, two, one):  # who asked at the same time
        await shortages.short(THING)
    assert await two.known() == {THING: PAUSE_SECONDS_FIRST}
    assert not await one.probe(THING) and await two.probe("cx33 in fsn1")
    here.now[0] += PAUSE_SECONDS_FIRST
    assert sum(await asyncio.gather(*(each.probe(THING) for each in (one, two) * 8))) == 1
    here.now[0] += PROBE_SECONDS  # whoever asked is dead
    assert sum(await asyncio.gather(*(each.probe(THING) for each in (one, two) * 8))) == 1


async def test_the_pause_grows_up_to_a_bound_and_is_forgotten_with_the_shortage(here: Here) -> None:
    one, two = here.shortages
    pauses = []
    for _ in range(8):
        await one.short(THING)
        pauses.append((await two.known())[THING])
        here.now[0] += pauses[-1]
        assert await two.probe(THING)
    assert pauses[:3] == [PAUSE_SECONDS_FIRST, 2 * PAUSE_SECONDS_FIRST, 4 * PAUSE_SECONDS_FIRST]
    assert max(pauses) == pauses[-1] == SHORT_SECONDS_MAX
    await one.there(THING)
    assert await two.known() == {}
    await two.short(THING)
    assert (await one.known())[THING] == PAUSE_SECONDS_FIRST


async def test_without_the_database_a_process_counts_by_itself() -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:9/none")  # never opened
    clock: Callable[[], float] = lambda: 0.0  # noqa: E731
    budget = StoredBudget(nowhere, "a", LIMIT, LocalBudget(LIMIT, clock), clock)
    assert await taken((budget,), False, 90) == 80 and await taken((budget,), True, 30) == 20
    shortages = StoredShortages(nowhere, "a", LocalShortages(clock), clock)
    await shortages.short(THING)
    assert not await shortages.probe(THING) and THING in await shortages.known()
    await shortages.there(THING)
    assert await shortages.probe(THING)


async def test_by_the_databases_own_clock_it_refills(database: Database) -> None:
    quick = RequestLimit(100, 1e6, 20)
    budget = StoredBudget(database, "quick", quick, LocalBudget(quick, lambda: 0.0))
    assert await taken((budget,), False, 300) == 300
