"""A relay's process, for the races: calls as many at once as it can, pays a part of what it held. Says what it did."""

from __future__ import annotations

import asyncio
import os
import sys
from random import Random

from tests.store.ledgers import ask, ended
from tinyfat.domain.usage import Price, Usage
from tinyfat.ports.usage import Held
from tinyfat.store.database import Database
from tinyfat.store.usage import UsageStore

AMOUNT = 4_000_000  # nano-dollars: 250 of them are a dollar
AT_ONCE = 100


async def main(seed: int, calls: int) -> None:
    random = Random(seed)
    database = Database(os.environ["LEDGER_URL"], 1)
    await database.open()
    ledger = UsageStore(database, f"relay:{seed}")
    await ledger.beat()
    slots = asyncio.Semaphore(AT_ONCE)
    done: list[int] = []
    begun = asyncio.Event()

    async def call() -> None:
        async with slots:
            [verdict] = await ledger.reserve([ask(os.environ["LEDGER_KEY"], AMOUNT)])
            if not begun.is_set():
                begun.set()
                print("begun", flush=True)
            if not isinstance(verdict, Held):
                done.append(-1)
                return
            cost = random.randrange(AMOUNT // 2, AMOUNT + 1)
            await ledger.settle([ended(verdict.call_id, Usage(cost, 0), price=Price(1, 0, 0, 0, "x"))])
            done.append(cost)

    await asyncio.gather(*(call() for _ in range(calls)))
    paid = [cost for cost in done if cost >= 0]
    print(len(paid), len(done) - len(paid), sum(paid), flush=True)
    await ledger.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
