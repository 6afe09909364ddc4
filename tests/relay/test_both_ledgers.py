"""A thousand calls at once against one dollar, through several relays' processes, some of them killed:
our ledger beside the vendor's own count.

Every relay shows the vendor a key of its own, and is called with a key of the agent's of its own: so both ledgers tell
which relay made a call. Whether a cap is reached and a relay dies in its calls must not hang on how fast this machine
is today: so the vendor stands still until a call was refused, and the relay that holds most is killed there and then.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.machine_speed import patient
from tests.running import free_port, until
from tests.store.conftest import database_url, ledgers, postgres
from tests.store.ledgers import Ledgers, key_number
from tinyfat.domain.relay_keys import key_hash
from tinyfat.domain.usage import NANODOLLARS_PER_DOLLAR, Caps

__all__ = ["database_url", "ledgers", "postgres"]  # fixtures

RELAYS = 4
CALLS, CALLS_FIRST = 1000, 80
KILLED_AT = 200  # answers: then the relay that gave the last one is killed, too
START_SECONDS_MAX, CALL_SECONDS_MAX = 60.0, patient(60.0)
PRICE_INPUT, PRICE_OUTPUT = 2_500, 25_000  # nano-dollars a token: $2.50 and $25 a million
TOKENS_MAX = 60  # of an answer: with the request's bytes, a call holds a fifth of a cent

# At every change of the row, by whichever connection. A violation aborts that commit, and its call is not made.
_WITNESS = (
    "create function witness() returns trigger language plpgsql as $$ begin "
    "if new.month_spent + new.reserved > new.month_cap then raise exception 'over the cap'; end if; "
    "return new; end $$; create trigger witness before update on budgets for each row execute function witness()"
)


@dataclass(frozen=True, slots=True)
class RelayProcess:
    port: int
    key: str  # the agent's
    vendor_key: str
    process: asyncio.subprocess.Process


@asynccontextmanager
async def running(port: int, *arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, env=os.environ | environment, stdout=asyncio.subprocess.DEVNULL
    )

    async def listens() -> bool:
        assert process.returncode is None, f"{arguments} ended with {process.returncode}"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await until(listens, START_SECONDS_MAX, f"{arguments} listens")
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def relaying(number: int, key: str, home: Path, url: str, vendor: int) -> AsyncIterator[RelayProcess]:
    home.mkdir(mode=0o700)
    port, vendor_key = free_port(), f"vendor-key-of-relay-{number}"
    model = {
        "alias": "main", "vendor": "bench", "model": "bench", "url": f"http://127.0.0.1:{vendor}/v1",
        "api": "openai-completions", "key_variable": "VENDOR_KEY", "price_input": "2.5", "price_output": "25",
    }  # fmt: skip
    async with running(
        port, "tinyfat", "serve", "relay", TINYFAT_HOME=str(home), TINYFAT_DATABASE_URL=url, VENDOR_KEY=vendor_key,
        TINYFAT_RELAY_LISTEN=f"127.0.0.1:{port}", TINYFAT_MODELS=json.dumps([model]),
    ) as process:  # fmt: skip
        yield RelayProcess(port, key, vendor_key, process)


async def call(session: aiohttp.ClientSession, relay: RelayProcess, number: int) -> str:
    """What became of it: "answered", "refused" in words, or "lost" with its relay."""
    said = f"{'word ' * (number % 20)}{number}"
    body = {
        "model": "main", "max_tokens": TOKENS_MAX, "stream": number % 2 == 0,
        "messages": [{"role": "user", "content": f"model: say {said}\nmodel: slow {number % 7 / 20}"}],
    }  # fmt: skip
    url = f"http://127.0.0.1:{relay.port}/v1/chat/completions"
    try:
        async with session.post(url, json=body, headers={"authorization": f"Bearer {relay.key}"}) as answer:
            await answer.read()
            assert answer.status == 200, answer.status
            return "refused" if "x-tinyfat-refused" in answer.headers else "answered"
    except (aiohttp.ClientError, OSError):
        return "lost"


class Crowd:
    """All the calls, and what became of them."""

    def __init__(self, relays: list[RelayProcess], vendor: asyncio.subprocess.Process, ledgers: Ledgers) -> None:
        self.relays, self._vendor, self._ledgers = relays, vendor, ledgers
        self.found: Counter[tuple[int, str]] = Counter()  # (relay, outcome)
        self.killed: list[int] = []

    async def call(self) -> None:
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS_MAX)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            # First a few of each: later one relay or two may have the whole dollar before the others look.
            await asyncio.gather(*(self._one(session, number) for number in range(CALLS_FIRST)))
            async with asyncio.TaskGroup() as calls:
                with _standing_still(self._vendor):
                    for number in range(CALLS_FIRST, CALLS):
                        calls.create_task(self._one(session, number))
                    await until(self._refuses, CALL_SECONDS_MAX, "a call is refused, since the dollar is held")
                    self._kill(await self._holds_most())

    async def _one(self, session: aiohttp.ClientSession, number: int) -> None:
        relay = number % RELAYS
        self.found[relay, await call(session, self.relays[relay], number)] += 1
        if len(self.killed) == 1 and self.count("answered") >= KILLED_AT and relay not in self.killed:
            self._kill(relay)  # it has answered this moment

    def count(self, outcome: str) -> int:
        return sum(count for (_, what), count in self.found.items() if what == outcome)

    def _kill(self, relay: int) -> None:
        self.killed.append(relay)
        self.relays[relay].process.kill()

    async def _refuses(self) -> bool:
        return self.count("refused") > 0

    async def _holds_most(self) -> int:
        [[most]] = await self._ledgers.rows(
            "select encode(k.hash, 'hex') from holds h join relay_keys k on k.id = h.key_id "
            "group by 1 order by count(*) desc limit 1"
        )
        return [key_hash(relay.key).hex() for relay in self.relays].index(most)


@contextmanager
def _standing_still(process: asyncio.subprocess.Process) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


async def _vendors_count(port: int) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/count") as answer:
        counted: dict[str, Any] = await answer.json()
        return counted


def _cost(line: dict[str, int]) -> int:
    return line["input"] * PRICE_INPUT + line["output"] * PRICE_OUTPUT


@pytest.mark.story
async def test_a_thousand_calls_through_relays_that_die_beside_the_vendors_own_count(
    ledgers: Ledgers, tmp_path: Path
) -> None:
    agent_id, key = await ledgers.agent(Caps(NANODOLLARS_PER_DOLLAR, None, None, None))
    keys = [key, *(key_number(1000 + number) for number in range(1, RELAYS))]
    for other in keys[1:]:
        await ledgers.keys.add(agent_id, other)
    await ledgers.rows(_WITNESS)
    ledgers.now = None
    port = free_port()
    async with AsyncExitStack() as stack:
        vendor = await stack.enter_async_context(
            running(port, "tinyfat.standins.model", "--listen", f"127.0.0.1:{port}")
        )
        started = [relaying(n, keys[n], tmp_path / f"relay{n}", ledgers.url, port) for n in range(RELAYS)]
        relays = list(await asyncio.gather(*(stack.enter_async_context(one) for one in started)))
        crowd = Crowd(relays, vendor, ledgers)
        await crowd.call()
        counted = await _vendors_count(port)
    await _swept(ledgers)

    # By our ledger: never over the dollar (the witness), nothing held any more, every sum what its rows say.
    spend = await ledgers.second.spend(agent_id)
    assert spend.reserved == 0 and 0 < spend.spent <= NANODOLLARS_PER_DOLLAR
    # By the vendor's: nor was it ever called for more.
    assert _cost(counted) <= spend.spent
    ours = {
        row[0]: {"calls": row[1], "input": row[2], "output": row[3], "cost": row[4], "swept": row[5]}
        for row in await ledgers.rows(
            "select encode(k.hash, 'hex'), count(*), sum(input)::bigint, sum(output)::bigint, sum(cost)::bigint, "
            "count(*) filter (where outcome = 'swept') from calls c join relay_keys k on k.id = c.key_id group by 1"
        )
    }
    theirs = counted["by_key"]
    seen = f"killed {crowd.killed}, {sorted(crowd.found.items())}; ours {ours}; theirs {theirs}"
    for number, relay in enumerate(relays):
        mine = ours[key_hash(relay.key).hex()]
        its = theirs[hashlib.sha256(relay.vendor_key.encode()).hexdigest()]
        answered, lost = crowd.found[number, "answered"], crowd.found[number, "lost"]
        if number not in crowd.killed:  # call by call, token by token, to the nano-dollar
            assert mine == {**its, "cost": _cost(its), "swept": 0}, f"relay {number}: {seen}"
            assert answered == its["calls"] and lost == 0, f"relay {number}: {seen}"
        else:  # no call of the vendor's is missing here; what nobody could count any more is paid as it was held
            assert mine["calls"] >= its["calls"] >= answered and mine["cost"] >= _cost(its), f"relay {number}: {seen}"
            assert answered + lost >= mine["calls"], f"relay {number}: {seen}"
    assert len(crowd.killed) == 2 and crowd.count("refused") > 0, seen
    died_first = crowd.killed[0]
    assert crowd.found[died_first, "lost"] > 0 and ours[key_hash(relays[died_first].key).hex()]["swept"] > 0, seen


async def _swept(ledgers: Ledgers) -> None:
    """A minute later."""
    await ledgers.must_add_up()
    await ledgers.rows("update holds set at = at - interval '61 s'")
    await ledgers.rows("update executors set heartbeat_at = now() - interval '61 s' where id like 'relay/%%'")
    await ledgers.second.sweep(60.0)
    await ledgers.must_add_up()
