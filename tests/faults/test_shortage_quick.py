"""A shortage, and a limit that others have used up; what is asked of the provider is counted."""

from __future__ import annotations

import pytest

from tests.faults.lying_cloud_world import LOCATIONS, lying_world
from tests.faults.shortage import BURSTS, REQUESTS_A_CREATE_MAX, shortage, used_up
from tests.postgres import database, server
from tinyfat.domain.request_limits import HETZNER_LIMIT
from tinyfat.drivers.hetzner_cloud import CALLS_AT_ONCE
from tinyfat.drivers.machines.hetzner.choice import TYPES_TRIED_MAX
from tinyfat.drivers.machines.hetzner.fleet import LISTING_SECONDS
from tinyfat.flows import watch
from tinyfat.store.database import Database

__all__ = ["database", "server"]


async def test_an_hour_without_room_every_agent_is_undone_in_words_and_an_end_ends(database: Database) -> None:
    async with lying_world(database, 0, watch.SHORT_SECONDS_MAX, LISTING_SECONDS) as world:
        told = await shortage(world)
    assert told.complaints == [] and told.refused == 0
    assert all(made <= count * REQUESTS_A_CREATE_MAX for made, count in zip(told.requests, BURSTS, strict=True)), told
    assert told.orders[-1] <= len(LOCATIONS) * TYPES_TRIED_MAX < BURSTS[-1] * TYPES_TRIED_MAX, told


@pytest.mark.parametrize(("left", "refused"), [(HETZNER_LIMIT.reserve / 4, 1), (0.0, CALLS_AT_ONCE)])
async def test_where_others_used_up_the_limit_ends_go_first_and_the_rest_waits(
    database: Database, left: float, refused: int
) -> None:
    """As long as it takes until more than the reserve is there again, and not until all of the limit is."""
    async with lying_world(database, 0, watch.SHORT_SECONDS_MAX, LISTING_SECONDS) as world:
        told = await used_up(world, left)
    assert told.complaints == [] and told.refused <= refused
    assert told.seconds < 2 * HETZNER_LIMIT.reserve / HETZNER_LIMIT.per_second
