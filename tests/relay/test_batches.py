"""Many calls, one commit; and one that cannot be written spoils it for nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.store.ledgers import NO_CAPS, ask, ended, key_number
from tinyfat.domain.relay_keys import key_hash
from tinyfat.drivers.usage.memory import MemoryUsageLedger
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.usage import Held, Refused, Reservation, Settlement
from tinyfat.relay.batches import WAITING_MAX, LedgerDesk, Overloaded

KEY = key_number(1)


class SlowLedger(MemoryUsageLedger):
    """It notes every batch, and waits to be let on."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[int, int, int]] = []
        self.poison = ""
        self.open = asyncio.Event()
        self.add("ada", key_hash(KEY), NO_CAPS)

    async def commit(
        self, reservations: Sequence[Reservation], settlements: Sequence[Settlement], releases: Sequence[str]
    ) -> list[Held | Refused]:
        self.batches.append((len(reservations), len(settlements), len(releases)))
        await self.open.wait()
        if self.poison in [*(one.call_id for one in reservations), *(one.call_id for one in settlements)]:
            raise ValueError("this cannot be written")
        return await super().commit(reservations, settlements, releases)


async def test_what_comes_meanwhile_goes_in_one_batch_ends_and_beginnings_alike() -> None:
    ledger = SlowLedger()
    desk = LedgerDesk(ledger)
    first = [desk.reserve(ask(KEY)) for _ in range(2)]
    ledger.open.set()
    one, two = await asyncio.gather(*first)
    assert isinstance(one, Held) and isinstance(two, Held)
    ledger.open.clear()
    under_way = desk.reserve(ask(KEY))
    await asyncio.sleep(0)
    waiting = [desk.settle(ended(one.call_id)), desk.release(two.call_id), desk.reserve(ask(KEY))]
    ledger.open.set()
    await asyncio.gather(under_way, *waiting)
    assert ledger.batches == [(2, 0, 0), (1, 0, 0), (1, 1, 1)]
    assert len(ledger.calls) == 1 and (await ledger.spend("ada")).reserved == 2000


async def test_one_that_cannot_be_written_is_alone_to_blame() -> None:
    ledger = SlowLedger()
    desk = LedgerDesk(ledger)
    bad, good = ask(KEY), ask(KEY)
    ledger.poison = bad.call_id
    asked = [desk.reserve(good), desk.reserve(bad), desk.reserve(ask(KEY))]
    ledger.open.set()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in found] == [Held, ValueError, Held]


async def test_while_the_database_is_away_each_is_told_so_once() -> None:
    ledger = SlowLedger()
    ledger.open.set()
    ledger.down = True
    desk = LedgerDesk(ledger)
    found = await asyncio.gather(*(desk.reserve(ask(KEY)) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [StoreUnavailable] * 3 and ledger.batches == [(3, 0, 0)]


async def test_beginnings_are_refused_where_too_many_wait_ends_never() -> None:
    desk = LedgerDesk(SlowLedger())
    waiting: list[asyncio.Future[object]] = [desk.reserve(ask(KEY)) for _ in range(WAITING_MAX)]  # type: ignore[misc]
    with pytest.raises(Overloaded):
        desk.reserve(ask(KEY))
    desk.release("any")
    for one in waiting:
        one.cancel()


async def test_a_hold_that_nobody_waits_for_any_more_is_released() -> None:
    ledger = SlowLedger()
    desk = LedgerDesk(ledger)
    asking = desk.reserve(ask(KEY))
    await asyncio.sleep(0)
    asking.cancel()
    ledger.open.set()
    await desk.close()
    assert ledger.batches == [(1, 0, 0), (0, 0, 1)]
    assert (await ledger.spend("ada")).reserved == 0
