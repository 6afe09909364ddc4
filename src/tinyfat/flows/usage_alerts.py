"""The owner is told by mail what their agent spends: at 50, 80 and 100 % of the month, and when a cap is hit.

The ledger notes an alert in the very statement that spends or refuses; here it becomes a mail, which leaves as every
other does. A crash in between costs time and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from tinyfat.flows.delivery import Delivery
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.usage import Alert, Notice, UsageAlerts, UsageLedger
from tinyfat.recipes.notice_mail import notice_mail
from tinyfat.recipes.usage_mail import usage_subject, usage_text

AT_ONCE_MAX = 100
STALE_SECONDS = 60.0  # a relay that was silent this long is dead; it beats every few seconds
SWEEPS_MAX = 100  # batches of dead holds in one go

log = logging.getLogger(__name__)


class UsageWatch:
    def __init__(
        self, domain: str, ledger: UsageLedger, alerts: UsageAlerts, delivery: Delivery, clock: Callable[[], float]
    ) -> None:
        """`clock`: monotonic seconds."""
        self._domain = domain
        self._clock = clock
        self._sweep_from = 0.0
        self._ledger = ledger
        self._alerts = alerts
        self._delivery = delivery

    async def sweep_holds(self) -> int:
        """What dead relays left is settled at what was held. Returns how many.

        While the database was away no relay could beat: those that live do so first, once it is back.
        """
        if self._clock() < self._sweep_from:
            return 0
        swept = 0
        try:
            for _ in range(SWEEPS_MAX):
                count = await self._ledger.sweep(STALE_SECONDS)
                swept += count
                if count == 0:
                    break
        except StoreUnavailable:
            self._sweep_from = self._clock() + STALE_SECONDS
            raise
        if swept:
            log.warning("%d calls of a relay that died were settled as held", swept)
        return swept

    async def tell_owners(self) -> int:
        """Returns how many mails were written. One that cannot be does not hold up the others."""
        told = 0
        for alert in await self._alerts.open(AT_ONCE_MAX):
            try:
                notice = self._notice(alert)
            except ValueError as error:
                log.error("the alert %s of %s cannot be written: %s", alert.kind, alert.agent_name, error)
                continue
            await self._delivery.attempt(await self._alerts.record(alert, notice))
            told += 1
        return told

    def _notice(self, alert: Alert) -> Notice:
        name = alert.agent_name
        sender = f"{name}@{self._domain}"
        message_id = f"<usage.{alert.id}@{self._domain}>"
        subject = usage_subject(name, alert.kind)
        text = usage_text(name, alert.kind, alert.spent, alert.reserved, alert.cap, alert.amount)
        raw = notice_mail(sender, alert.owner, message_id, alert.at, subject, text)
        return Notice(message_id, sender, alert.owner, subject, raw)
