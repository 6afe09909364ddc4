from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.relay.relays import TestRelay, relaying


@pytest.fixture
async def relay() -> AsyncIterator[TestRelay]:
    async with relaying() as made:
        yield made
