"""An alert becomes one mail of the ledger, and leaves by the same way as every other."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.store.ledgers import Ledgers, ask, ended
from tinyfat.domain.usage import Caps, Price, Usage
from tinyfat.drivers.mail.memory import MemoryMailOut
from tinyfat.drivers.usage.memory import MemoryUsageLedger
from tinyfat.flows.delivery import Delivery
from tinyfat.flows.usage_alerts import STALE_SECONDS, UsageWatch
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.usage import Held, Refused, Reservation
from tinyfat.recipes.notice_mail import notice_mail
from tinyfat.recipes.usage_mail import usage_subject, usage_text
from tinyfat.store.deliveries import DeliveryStore
from tinyfat.store.usage_alerts import UsageAlertStore

PRICE = Price(1, 0, 0, 0, "x")
KINDS = ("50", "80", "100", "day", "turn-money", "turn-calls")


def _watch(ledgers: Ledgers) -> tuple[UsageWatch, MemoryMailOut]:
    out = MemoryMailOut()
    delivery = Delivery("tinyfat.localhost", DeliveryStore(ledgers.database, "here"), out, b"secret")
    alerts = UsageAlertStore(ledgers.database)
    return UsageWatch("tinyfat.localhost", ledgers.first, alerts, delivery, lambda: 0.0), out


async def test_the_owner_is_told_once(ledgers: Ledgers) -> None:
    _, key = await ledgers.agent(Caps(1_000_000_000, None, None, None))
    watch, out = _watch(ledgers)
    assert await watch.tell_owners() == 0
    await ledgers.first.settle([ended(await ledgers.held(key, 800_000_000), Usage(800_000_000, 0), price=PRICE)])
    assert await watch.tell_owners() == 1
    for _ in range(2):
        await ledgers.first.reserve([ask(key, 300_000_000)])
        await watch.tell_owners()
    assert await ledgers.rows("select count(*) from usage_alerts where message_row is null") == [(0,)]
    rows = await ledgers.rows("select direction, state, recipient, subject from messages order by position")
    assert rows == [
        ("out", "sent", "owner@example.org", "agent1 has used 80 % of this month's allowance"),
        ("out", "sent", "owner@example.org", "agent1 has used up this month's allowance"),
    ]
    texts = [email.message_from_bytes(sent.raw, policy=email.policy.default) for sent in out.sent]
    assert [t["Auto-Submitted"] for t in texts] == ["auto-generated"] * 2
    last = texts[1].get_content()
    assert "$1.00" in last and "$0.80" in last and "$0.30" in last and "tinyfat cap set agent1 --month" in last


async def test_a_crash_between_mail_and_word_writes_one_mail(ledgers: Ledgers) -> None:
    _, key = await ledgers.agent(Caps(0, None, None, None))
    await ledgers.first.reserve([ask(key, 1)])
    store = UsageAlertStore(ledgers.database)
    [alert] = await store.open(10)
    watch, _ = _watch(ledgers)
    notice = watch._notice(alert)
    assert await store.record(alert, notice) == await store.record(alert, notice)
    assert await ledgers.rows("select count(*) from messages") == [(1,)]
    assert await store.open(10) == []


async def test_an_owner_that_cannot_be_written_to_holds_up_nobody(ledgers: Ledgers) -> None:
    for name in ("agent1", "agent2"):
        _, key = await ledgers.agent(Caps(0, None, None, None))
        if name == "agent1":
            await ledgers.rows("update agents set owner = 'nobody'")
        await ledgers.first.reserve([ask(key, 1)])
    watch, out = _watch(ledgers)
    assert await watch.tell_owners() == 1 and len(out.sent) == 1


async def test_dead_holds_are_swept_in_one_go(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent()
    ledgers.now = None
    await ledgers.second.reserve([ask(key, 1) for _ in range(600)])
    await ledgers.second.leave()
    await ledgers.rows("update holds set at = at - interval '61 s'")
    watch, _ = _watch(ledgers)
    assert await watch.sweep_holds() == 600
    assert (await ledgers.first.spend(agent_id)).spent == 600


async def test_after_the_database_was_away_relays_that_live_beat_before_anything_is_swept() -> None:
    ledger = MemoryUsageLedger()
    ledger.add("ada", b"key", Caps(None, None, None, None))
    await ledger.reserve([Reservation("call", b"key", 5, "chat", "main", "v", "m", PRICE)])
    now = [1000.0]
    watch = UsageWatch("x", ledger, None, None, lambda: now[0])  # type: ignore[arg-type]
    ledger.down = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            now[0] += STALE_SECONDS
            await watch.sweep_holds()
    ledger.down = False
    now[0] += STALE_SECONDS - 1
    assert await watch.sweep_holds() == 0 and ledger.calls == []
    now[0] += 1
    assert await watch.sweep_holds() == 1 and ledger.calls[0].cost == 5


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_words(kind: str) -> None:
    text = usage_text("ada", kind, 10**9, 5 * 10**8, 2 * 10**9, 10**7)
    assert "ada" in text and "tinyfat cap set ada" in text and "$1.00" in text and "$0.50" in text
    assert "ada" in usage_subject("ada", kind)


def test_a_broken_address_is_no_mail() -> None:
    with pytest.raises(ValueError):
        notice_mail("ada@x.example", "a@b\r\nBcc: c@d", "<a@b>", datetime.now(UTC), "s", "t")


async def test_what_is_asked_for_again_at_once_is_no_news(ledgers: Ledgers) -> None:
    for caps in (Caps(1_000, None, None, None), Caps(None, 1_000, None, None), Caps(None, None, 1_000, None)):
        _, key = await ledgers.agent(caps)
        quiet = replace(ask(key, 2_000, turn="t"), quiet=True)
        [refused] = await ledgers.first.reserve([quiet])
        assert isinstance(refused, Refused)
        [lowered] = await ledgers.first.reserve([replace(ask(key, 2_000, turn="t"), least=500)])
        assert isinstance(lowered, Held) and lowered.amount == 1_000
    assert await ledgers.rows("select count(*) from usage_alerts") == [(0,)]
    assert await ledgers.rows("select max(warned) from budgets") == [(0,)]
